#pragma once

#include "kernels/simd.h"

namespace dp_moe::DP_MOE_ISA {

/// W elements, or the first n of them (the other lanes 0).
template <bool full>
DP_MOE_INLINE vf read(const float* p, int64_t n) {
  return full ? load(p) : loadPartial(p, n);
}
template <bool full>
DP_MOE_INLINE void write(float* p, vf v, int64_t n) {
  if (full) {
    store(p, v);
  } else {
    storePartial(p, v, n);
  }
}

/// f.operator()<full>(first, count) over [0, n) in vectors of W elements, the last one partial.
template <class F>
DP_MOE_INLINE void forVectors(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + W <= n; i += W) f.template operator()<true>(i, W);
  if (i < n) f.template operator()<false>(i, n - i);
}

/// Two vectors interleaved, a0 b0 a1 b1 ...: the first W of the 2 W lanes, and the others.
template <class V>
DP_MOE_INLINE V interleaveLower(V a, V b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}
template <class V>
DP_MOE_INLINE V interleaveUpper(V a, V b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

DP_MOE_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
DP_MOE_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace dp_moe::DP_MOE_ISA
