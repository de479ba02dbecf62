#pragma once

#include <cstdint>

#include "bfloat16.h"
#include "report.h"

// Attention in tiles. A block holds a tile of rows of one unit and head (queries, or keys in the backward pass for
// them) and streams tiles of the other side past it. Tiles are counted from the unit's first row; head sizes are padded
// to 32, 64, 128 or 256. How a tile is cut follows from the type and the padded head size alone.

namespace dp_moe {

struct AttentionKernelParams {
  const void* q;
  const void* k;
  const void* v;
  const int32_t* offsets;
  const int32_t* keyOffsets;
  const float* bias;  // null: none
  void* y;
  float* logSumExp;
  Report wrongOffsets;
  Report wrongKeyOffsets;
  int64_t rows;
  int64_t keyRows;
  int64_t units;
  int64_t heads;
  int64_t keyValueHeads;
  int64_t headSize;
  int64_t span;
  float scale;
  bool causal;
  bool packed;  // every row starts at a multiple of 16 bytes
};

/// dots [rows, heads] is scratch: <dy, y> of every query and head.
struct AttentionBackwardKernelParams {
  const void* dy;
  const void* q;
  const void* k;
  const void* v;
  const void* y;
  const float* logSumExp;
  float* dots;
  const int32_t* offsets;
  const int32_t* keyOffsets;
  const float* bias;
  void* dq;
  void* dk;
  void* dv;
  float* dBias;  // null: not asked for
  Report wrongOffsets;
  Report wrongKeyOffsets;
  int64_t rows;
  int64_t keyRows;
  int64_t units;
  int64_t heads;
  int64_t keyValueHeads;
  int64_t headSize;
  int64_t span;
  float scale;
  bool causal;
  bool packed;
};

namespace attention {

/// Elements from a row of a tile in shared memory to the next: 16 bytes of padding, so that eight rows at the same
/// column fall on different banks.
template <class T, int head>
inline constexpr int kStride = head + 16 / static_cast<int>(sizeof(T));

/// Floats of shared memory in which a float32 warp spreads 16 rows of weights (warp_product.h).
template <class T, int depth>
inline constexpr int kWeightScratch = sizeof(T) == sizeof(float) ? 16 * (depth + 4) : 0;

/// The forward pass: each warp has `kRowTiles` times 16 queries.
template <class T, int head>
struct Forward {
  static constexpr bool kSmall = sizeof(T) == 2;
  static constexpr int kWarps = !kSmall && head == 256 ? 2 : 4;
  static constexpr int kRowTiles = kSmall && head <= 128 ? 2 : 1;
  static constexpr int kRows = 16 * kRowTiles * kWarps;
  static constexpr int kStreamed =
      kSmall ? (head <= 128 ? (head == 32 ? 64 : 32) : 16) : (head <= 64 ? 32 : 2048 / head);
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kTileBytes = (kRows + 4 * kStreamed) * kStride<T, head> * static_cast<int>(sizeof(T));
  static constexpr int kScratchFloats = kWarps * kWeightScratch<T, kStreamed>;
  static constexpr int kWindow = kRows + kStreamed;
  /// Dynamic shared memory of a block.
  static constexpr int sharedBytes(bool bias) { return kTileBytes + 4 * (kScratchFloats + (bias ? 2 * kWindow : 0)); }
};

/// The backward pass, for queries and for keys: each warp has 16 rows of the block's tile, and of the gradient's
/// columns one of `kParts` parts.
template <class T, int head>
struct Backward {
  static constexpr bool kSmall = sizeof(T) == 2;
  static constexpr int kRowWarps = kSmall ? (head == 256 ? 2 : 4) : (head <= 64 ? 4 : 256 / head);
  static constexpr int kParts = 4 / kRowWarps;
  static constexpr int kColumns = head / kParts;
  static constexpr int kRows = 16 * kRowWarps;
  static constexpr int kStreamed = kSmall ? (head <= 64 ? 64 : 4096 / head) : (head == 32 ? 32 : head == 256 ? 8 : 16);
  static constexpr int kThreads = 128;
  static constexpr int kTileBytes = (2 * kRows + 4 * kStreamed) * kStride<T, head> * static_cast<int>(sizeof(T));
  static constexpr int kScratchFloats = 4 * kWeightScratch<T, kStreamed>;
  static constexpr int kWindow = kRows + kStreamed;
  static constexpr int kSquareFloats = kRows * (kStreamed + 1) + kWindow;
  static constexpr int sharedBytes(bool bias, bool dBias) {
    return kTileBytes + 4 * (kScratchFloats + 4 * kStreamed + (bias ? 2 * kWindow : 0) + (dBias ? kSquareFloats : 0));
  }
};

constexpr int kDotThreads = 128;

}  // namespace attention

}  // namespace dp_moe
