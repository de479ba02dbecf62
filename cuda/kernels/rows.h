#pragma once

#include <cstdint>

#include "row_walk.h"

namespace dp_moe {

/// EmbeddingParams; y is of the kernel's type.
struct EmbeddingKernelParams {
  RowWalk walk;
  const float* table;
  const int32_t* ids;
  void* y;
  Report wrongId;
  int64_t vocabulary;
  float scale;
};

/// GatherRowsParams; x has `xRows` rows.
struct GatherRowsKernelParams {
  RowWalk walk;
  const void* x;
  const int32_t* index;
  const float* scale;
  void* y;
  Report wrongIndex;
  int64_t xRows;
};

/// CombineRowsParams; x has `xRows` rows.
struct CombineRowsKernelParams {
  RowWalk walk;
  const void* x;
  const int32_t* slot;
  const float* weight;
  void* y;
  Report wrongSlot;
  int64_t xRows;
  int64_t perRow;
  bool accumulate;
};

constexpr int kPoolWarps = 8;

/// PoolParams. A block makes 32 packs of columns of one unit: warp w adds the unit's rows w, w + 8, ... in order, in
/// parts of 64, then the warps' sums are added in order.
struct PoolKernelParams {
  const void* x;
  const float* weights;
  const int32_t* segmentOffsets;
  void* y;
  Report wrongOffsets;
  int64_t rows;
  int64_t d;
  int32_t columnBlocks;
  bool packed;
};

/// PoolBackwardParams.
struct PoolBackwardKernelParams {
  UnitWalk walk;
  const void* dy;
  const float* weights;
  void* dx;
};

/// ConcatenateRowsParams and ConcatenateIndicesParams; walk.offsets are a's.
struct ConcatenateKernelParams {
  UnitWalk walk;
  const void* a;
  const void* b;
  const int32_t* bOffsets;
  void* y;
  Report wrongBOffsets;
  int64_t bRows;
};

}  // namespace dp_moe
