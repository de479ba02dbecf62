#pragma once

#include <cstdint>

namespace dp_moe {

/// The rows of one segment: row i is dy + dyRow(i) * p and x + xRow(i) * d, dyRow(i) = first + i and
/// xRow(i) = xRows == null ? first + i : xRows[first + i].
struct SegmentRows {
  const float* dy;
  const float* x;
  const int32_t* xRows;
  int64_t first;
  int64_t count;
  int64_t p;
  int64_t d;
};

/// A Gram norm: `value` the computed squared norm, `bound` a proven bound of its absolute error.
struct GramNorm {
  double value;
  double bound;
};

struct NormKernels {
  /// || dy' x ||_F^2 over row pairs; `scratch` takes gramScratch(count) floats.
  GramNorm (*gram)(const SegmentRows&, float* scratch);
  int64_t (*gramScratch)(int64_t count);

  /// Sum of the squares of a [rows, columns] block, in double.
  double (*squaredSum)(const float* block, int64_t rows, int64_t columns, int64_t stride);

  /// || sum over i < rows of dy[i, :] ||^2, row stride p, sums in double.
  double (*columnSumNorm)(const float* dy, int64_t rows, int64_t p);

  /// || sum over the linked rows row, next[row], ... (until -1) of dy[row, :] ||^2; `sum` takes d doubles.
  double (*chainNorm)(const float* dy, const int32_t* next, int32_t row, int64_t d, double* sum);

  /// y [d] += scale * x.
  void (*addScaled)(float* y, const float* x, float scale, int64_t d);

  /// sum over s < embeddingRows, t < headRows of dLogits[t, ids[s]] * <dEmbedding[s, :], x[t, :]>, and in `bound` the
  /// error bound of it. Pointers stand at the unit's first rows.
  GramNorm (*tiedCross)(const float* dEmbedding, const int32_t* ids, int64_t embeddingRows, const float* dLogits,
                        const float* x, int64_t headRows, int64_t d, int64_t vocabulary);
};

}  // namespace dp_moe
