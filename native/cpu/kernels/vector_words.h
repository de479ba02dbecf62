#pragma once

#include "kernels/simd.h"
#include "random/chacha.h"

namespace dp_moe::DP_MOE_ISA {

/// ChaCha's operations on W blocks at once, one per lane.
struct VectorWords {
  using Word = vu;
  template <int n>
  DP_MOE_INLINE Word rotate(Word x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    // Whole bytes move in one shuffle instead of two shifts and an or.
    if constexpr (n == 16) {
      const __m256i order = _mm256_set_epi8(13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2, 13, 12, 15, 14, 9, 8,
                                            11, 10, 5, 4, 7, 6, 1, 0, 3, 2);
      return (vu)_mm256_shuffle_epi8((__m256i)x, order);
    } else if constexpr (n == 8) {
      const __m256i order = _mm256_set_epi8(14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3, 14, 13, 12, 15, 10, 9,
                                            8, 11, 6, 5, 4, 7, 2, 1, 0, 3);
      return (vu)_mm256_shuffle_epi8((__m256i)x, order);
    }
#endif
    return (x << n) | (x >> (32 - n));
  }
};

/// Words of blocks counter .. counter + W - 1 in lanes 0 .. W - 1, for the start state of a stream's block 0.
DP_MOE_INLINE void chachaBlocks(const uint32_t start[16], uint32_t counter, vu x[16]) {
  vu counters = (vu)lanes() + counter;
  for (int i = 0; i < 16; ++i) x[i] = broadcast(start[i]);
  x[12] = counters;
  chachaRounds<VectorWords>(x);
  for (int i = 0; i < 16; ++i) x[i] += start[i];
  x[12] += counters - start[12];
}

}  // namespace dp_moe::DP_MOE_ISA
