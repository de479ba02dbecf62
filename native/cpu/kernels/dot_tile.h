#pragma once

#include "kernels/simd.h"

// Dot products of R rows with C rows at once: lanes run over the columns, each pair keeps one chain of fma per lane,
// and eight chains are summed across their lanes together (lane i + i + half, and so on: a fixed tree).

namespace dp_moe::DP_MOE_ISA {

#if defined(__AVX2__)
typedef float octet __attribute__((vector_size(32)));

DP_MOE_INLINE octet foldToOctet(vf x) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
         __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  return x;
#endif
}
/// {a0 + a4 .. a3 + a7, b0 + b4 .. b3 + b7}
DP_MOE_INLINE octet foldHalves(octet a, octet b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
/// Within each half: {a0 + a2, a1 + a3, b0 + b2, b1 + b3}
DP_MOE_INLINE octet foldPairs(octet a, octet b) {
  return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
         __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
DP_MOE_INLINE octet foldLanes(octet a, octet b) {
  return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}
/// out[i] (+=) the sum of the lanes of x[i], i < 8.
DP_MOE_INLINE void reduceEight(const vf* x, float* out, bool add) {
  octet y[8];
  for (int i = 0; i < 8; ++i) y[i] = foldToOctet(x[i]);
  // Halves hold (0, 4), (1, 5), (2, 6), (3, 7), so that the sums end up in order.
  const octet a = foldHalves(y[0], y[4]), b = foldHalves(y[1], y[5]);
  const octet c = foldHalves(y[2], y[6]), d = foldHalves(y[3], y[7]);
  octet sums = foldLanes(foldPairs(a, b), foldPairs(c, d));
  if (add) sums += loadAs<octet>(out);
  __builtin_memcpy(out, &sums, sizeof sums);
}
#else
DP_MOE_INLINE void reduceEight(const vf* x, float* out, bool add) {
  for (int i = 0; i < 8; i += 4) {
    const vf ab =
        __builtin_shufflevector(x[i], x[i + 1], 0, 1, 4, 5) + __builtin_shufflevector(x[i], x[i + 1], 2, 3, 6, 7);
    const vf cd = __builtin_shufflevector(x[i + 2], x[i + 3], 0, 1, 4, 5) +
                  __builtin_shufflevector(x[i + 2], x[i + 3], 2, 3, 6, 7);
    vf sums = __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
    if (add) sums += load(out + i);
    store(out + i, sums);
  }
}
#endif

/// sum[r * columns + c] = the lanes of <a[r], b[c]> over the columns [begin, end).
template <int rows, int columns>
DP_MOE_INLINE void dotTile(const float* const* a, const float* const* b, int64_t begin, int64_t end, vf* sum) {
  vf local[rows][columns] = {};
  int64_t at = begin;
  for (; at + W <= end; at += W) {
    vf right[columns];
    for (int c = 0; c < columns; ++c) right[c] = load(b[c] + at);
    for (int r = 0; r < rows; ++r) {
      const vf left = load(a[r] + at);
      for (int c = 0; c < columns; ++c) local[r][c] = fma(left, right[c], local[r][c]);
    }
  }
  if (at < end) {
    vf right[columns];
    for (int c = 0; c < columns; ++c) right[c] = loadPartial(b[c] + at, end - at);
    for (int r = 0; r < rows; ++r) {
      const vf left = loadPartial(a[r] + at, end - at);
      for (int c = 0; c < columns; ++c) local[r][c] = fma(left, right[c], local[r][c]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) sum[r * columns + c] = local[r][c];
  }
}

/// The lanes of <a[r], a[c]>, c <= r: diagonal[r], and pairs[r (r - 1) / 2 + c] for c < r.
template <int rows>
DP_MOE_INLINE void dotTriangle(const float* const* a, int64_t begin, int64_t end, vf* diagonal, vf* pairs) {
  vf square[rows] = {};
  vf product[rows * (rows - 1) / 2 + 1] = {};
  const auto step = [&](const vf* row) {
    for (int r = 0; r < rows; ++r) {
      square[r] = fma(row[r], row[r], square[r]);
      for (int c = 0; c < r; ++c) product[r * (r - 1) / 2 + c] = fma(row[r], row[c], product[r * (r - 1) / 2 + c]);
    }
  };
  int64_t at = begin;
  vf row[rows];
  for (; at + W <= end; at += W) {
    for (int r = 0; r < rows; ++r) row[r] = load(a[r] + at);
    step(row);
  }
  if (at < end) {
    for (int r = 0; r < rows; ++r) row[r] = loadPartial(a[r] + at, end - at);
    step(row);
  }
  for (int r = 0; r < rows; ++r) diagonal[r] = square[r];
  for (int i = 0; i < rows * (rows - 1) / 2; ++i) pairs[i] = product[i];
}

/// Relative error of such a dot product against sum |a||b|, with runs of at most `run` columns per chain.
/// A term passes through its product's rounding (none with fma), one rounding per vector of its chain, one per level
/// of the tree, and one per further run: gamma = n u / (1 - n u), u = 2^-24.
DP_MOE_INLINE double dotError(int64_t columns, int64_t run) {
  const int64_t longest = columns < run ? columns : run;
  const int64_t levels = W == 16 ? 4 : W == 8 ? 3 : 2;
  const double roundings = static_cast<double>((longest + W - 1) / W + 1 + levels + (columns + run - 1) / run);
  return roundings * 0x1p-24 / (1 - roundings * 0x1p-24);
}
/// And its absolute error where products fall below the smallest normal number.
DP_MOE_INLINE double dotUnderflow(int64_t columns) { return static_cast<double>(columns) * 0x1p-149; }

}  // namespace dp_moe::DP_MOE_ISA
