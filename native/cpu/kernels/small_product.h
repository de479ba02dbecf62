#pragma once

#include "kernels/simd.h"

namespace dp_moe::DP_MOE_ISA {

/// c [m, n] (+)= sum over i < k of a(row, i) b(i, column), all in cache: a(row, i) = a[row * aRow + i * aStep], b and c
/// with row strides bRow and cRow, n a multiple of W. Every element is one chain of fma in order of i.
struct SmallProduct {
  const float* a;
  int64_t aRow;
  int64_t aStep;
  const float* b;
  int64_t bRow;
  float* c;
  int64_t cRow;
  int64_t m;
  int64_t n;
  int64_t k;
  bool accumulate;
};

// 4 rows x 2 vectors: 8 accumulators (a latency of 4 times two fma a cycle), 2 of b and 1 of a: 11 of 16 registers.
template <int rows, int vectors>
DP_MOE_INLINE void productTile(const SmallProduct& p, int64_t row, int64_t column) {
  const float* a = p.a + row * p.aRow;
  const float* b = p.b + column;
  float* c = p.c + row * p.cRow + column;
  vf sum[rows][vectors];
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < vectors; ++v) sum[i][v] = p.accumulate ? load(c + i * p.cRow + v * W) : vf{};
  }
  for (int64_t step = 0; step < p.k; ++step) {
    vf right[vectors];
    for (int v = 0; v < vectors; ++v) right[v] = load(b + step * p.bRow + v * W);
    for (int i = 0; i < rows; ++i) {
      const vf left = broadcast(a[i * p.aRow + step * p.aStep]);
      for (int v = 0; v < vectors; ++v) sum[i][v] = fma(left, right[v], sum[i][v]);
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int v = 0; v < vectors; ++v) store(c + i * p.cRow + v * W, sum[i][v]);
  }
}

template <int rows>
DP_MOE_INLINE void productRows(const SmallProduct& p, int64_t row) {
  int64_t column = 0;
  for (; column + 2 * W <= p.n; column += 2 * W) productTile<rows, 2>(p, row, column);
  if (column < p.n) productTile<rows, 1>(p, row, column);
}

static __attribute__((noinline, unused)) void smallProduct(const SmallProduct& p) {
  int64_t row = 0;
  for (; row + 4 <= p.m; row += 4) productRows<4>(p, row);
  switch (p.m - row) {
    case 3:
      return productRows<3>(p, row);
    case 2:
      return productRows<2>(p, row);
    case 1:
      return productRows<1>(p, row);
  }
}

}  // namespace dp_moe::DP_MOE_ISA
