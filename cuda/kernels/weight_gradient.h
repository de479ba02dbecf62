#pragma once

#include "matrix.h"
#include "params.h"

namespace dp_moe {

/// Dynamic shared memory of a weight gradient; with the factors of each stage's rows.
constexpr uint32_t gradientSharedBytes(MatrixTile tile, bool isFloat32) {
  return static_cast<uint32_t>(isFloat32 ? 2 * float32BufferFloats(tile) * 4
                                         : kStages * (stageBytes(tile) + kSlab * 4));
}

/// Threads of the kernels around the sums.
constexpr int kGradientRowsThreads = 256;
constexpr int kThreadsPerSegment = 8;

/// Rows of a weight gradient's partial sum are added in chains of this many, then the chains' sums in order.
constexpr int32_t kChainRows = 512;

/// Rows that one block adds up; more are the work of several blocks, whose sums are then added in order. Where p and d
/// alone give work enough, never.
constexpr int64_t gradientChunkRows(int64_t tiles) {
  constexpr int64_t enough = 256;
  if (tiles >= enough) return int64_t{1} << 30;
  const int64_t rows = (tiles + 3) / 4 * kChainRows;
  return rows < 16 * kChainRows ? rows : 16 * kChainRows;
}

/// WeightGradientParams, and what its kernels tell each other: the rows of each group that count, in order.
struct WeightGradientKernelParams {
  const void* dy;
  const void* x;
  const int32_t* xRows;
  const int32_t* segmentOffsets;
  const float* factor;
  const int32_t* tileOf;
  const float* tiles;
  float* gradient;
  Report wrongRow;
  Report wrongOffsets;
  Report wrongTile;
  int32_t* keptBefore;    // [segments] rows of the group kept before the segment
  int32_t* groupRows;     // [groups, 2] where the group's list starts, how long it is
  int32_t* groupHasTile;  // [groups] whether a segment with a factor has kTileOfRows
  int32_t* dyRow;         // [rows] lists
  int32_t* xRow;
  float* scale;
  float* partials;  // [rows / chunkRows, p, d] sums of the chunks that are no group's first
  int64_t rows;
  int64_t xCount;
  int64_t tileCount;
  int64_t p;
  int64_t d;
  int64_t segments;
  int64_t units;
  int32_t groups;
  int32_t chunkRows;
  bool packedStores;  // pairs of a gradient's elements start at multiples of 8 bytes
};

}  // namespace dp_moe
