#pragma once

#include "kernels/simd.h"

// What the two products share: the register tile and its sizes.

// Before a loop over a tile's rows or vectors: gcc keeps a tile in registers only where such loops are gone early.
#define DP_MOE_UNROLL _Pragma("GCC unroll 16")

namespace dp_moe::DP_MOE_ISA {

// Register budget of a tile of R rows by two vectors: 2 R accumulators, 2 vectors of b, 1 of a.
#if defined(__AVX512F__)
constexpr int tileRowsWide = 14;  // 28 + 2 + 1 of 32
constexpr int tileRowsNarrow = 16;
#elif defined(__AVX2__)
constexpr int tileRowsWide = 6;  // 12 + 2 + 1 of 16
constexpr int tileRowsNarrow = 12;
#elif defined(__ARM_NEON)
constexpr int tileRowsWide = 10;  // 20 + 2 + 1 of 32
constexpr int tileRowsNarrow = 12;
#else
constexpr int tileRowsWide = 5;  // 10 + 2 + 1 of 16, and the product, as there is no fma
constexpr int tileRowsNarrow = 8;
#endif
constexpr int panelWidth = 2 * W;

template <int vectors>
constexpr int tileRows = vectors == 2 ? tileRowsWide : tileRowsNarrow;

/// tiles[t] = how many of `rows` rows tile t takes, in tiles of nearly equal size of at most `most` rows.
DP_MOE_INLINE int64_t tileCount(int64_t rows, int64_t most) { return (rows + most - 1) / most; }

/// Calls run.template operator()<rows>() for a row count known at run time, 1 <= rows <= most.
template <int most, class F>
DP_MOE_INLINE void withRows(int64_t rows, F&& run) {
  if (rows == most) {
    run.template operator()<most>();
  } else if constexpr (most > 1) {
    withRows<most - 1>(rows, run);
  }
}

}  // namespace dp_moe::DP_MOE_ISA
