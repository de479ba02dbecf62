#pragma once

#include <cstdint>

#include "params.h"
#include "report.h"

// The kernels of segmentGradientNorms, in the order of their launches: numberSegments numbers the segments of the tile
// form; gramOfShort and gramOfLong take the others and mark those where too many digits cancel; numberSegments numbers
// these; tileNorms makes all tiles, totalTiles sums their parts, sumOfSegments the segments of each unit. Every segment
// has a number of its own, which nothing else of the batch has a say in.

namespace dp_moe {

constexpr int kShortThreads = 256;        // of gramOfShort
constexpr int kLongThreads = 128;         // of gramOfLong
constexpr int kMostSegmentsPerBlock = 8;  // there
constexpr int kShortestOfLong = 9;        // rows: a segment of float32 of fewer is short, of bfloat16 of 17
constexpr int kNormThreads = 256;         // of the others

/// dy [rows, p] and x [xCount, d] of the segments.
struct SegmentOperands {
  const void* dy;
  const void* x;
  const int32_t* xRows;
  const int32_t* offsets;
  int64_t rows;
  int64_t p;
  int64_t d;
  int64_t xCount;
  int64_t segments;
  Report wrongOffsets;
  Report wrongRow;
  bool packedDy;
  bool packedX;
};

/// Blocks of a tile.
constexpr int kTileRows = 64;
constexpr int kTileColumns = 128;
constexpr int kTileChunkRows = 128;  // of a segment, in one chain of each element

constexpr int kNumberThreads = 1024;

/// Numbers the segments of at least `fewest` rows, or those with a mark, in segment order. The first `capacity` are
/// listed; there can be more only where offsets are wrong.
struct NumberSegmentsParams {
  const int32_t* offsets;
  const int32_t* marks;  // null: by rows
  int32_t* list;
  int32_t* count;
  int32_t* tileOf;  // [segments] optional: the number, or -1
  int64_t rows;
  int64_t segments;
  int64_t fewest;
  int64_t capacity;
  int64_t most;  // more than that many are an error where tileOf is there
  Report wrongOffsets;
  Report tooMany;
};

/// gramOfShort has a warp per segment, gramOfLong a block per `segmentsPerBlock`.
struct GramParams {
  SegmentOperands operands;
  double* values;   // [segments]
  int32_t* marks;   // [segments]: the tile form is to be used after all
  int32_t* tileOf;  // [segments] optional: kTileOfRows there
  int64_t fewest;   // rows from which on the tile form is used
  int32_t segmentsPerBlock;
};

/// The segments of a list, each in `parts` parts of about as many blocks of its tile.
struct TileList {
  const int32_t* segments;
  const int32_t* count;
  double* partNorms;  // [capacity, parts]
  int64_t capacity;
  int64_t parts;
};

/// Lists 0 (kept, where there are tiles) and 1. Any number of blocks.
struct TileNormsParams {
  SegmentOperands operands;
  TileList lists[2];
  float* tiles;  // optional
  int64_t maxTiles;
  double* values;
};

/// gradient[g] += factor * tile of every segment of g with kTileOfRows, in order. Any number of blocks.
struct TilesOfRowsParams {
  SegmentOperands operands;
  const int32_t* tileOf;
  const float* factor;          // [units] optional
  const int32_t* groupHasTile;  // [groups]: whether there is one
  float* gradient;              // [groups, p, d]
  int64_t groups;
  int64_t units;
};

/// normSquared[unit] += values[s, 0] + .. + values[s, parts - 1], for its segments s in order; a thread per unit.
struct SumOfSegmentsParams {
  const double* values;
  double* normSquared;
  int64_t segments;
  int64_t units;
  int64_t parts;
};

}  // namespace dp_moe
