#pragma once

#include <cstdint>

namespace dp_moe {

/// The rows of one segment: dy [count, p] at its first row; row i of x is x + xRows[i] * d, or x + i * d where xRows is
/// null.
struct SegmentRows {
  const float* dy;
  const float* x;
  const int32_t* xRows;
  int64_t count;
  int64_t p;
  int64_t d;
};

/// A sum and a proven bound of its absolute error.
struct BoundedSum {
  double value;
  double bound;
};

/// Rows s < embeddingRows and t < headRows of one unit's tied table; pointers at the first rows.
struct TiedRows {
  const float* dEmbedding;
  const int32_t* ids;
  const float* dLogits;
  const float* x;
  int64_t embeddingRows;
  int64_t headRows;
  int64_t d;
  int64_t vocabulary;
};

/// Rows [first, end) of one unit, summed, times its factor.
struct RowSum {
  int64_t first;
  int64_t end;
  float factor;
};

struct NormKernels {
  /// || dy' x ||_F^2 over pairs of rows; scratch takes gramScratch(count) floats.
  BoundedSum (*gram)(const SegmentRows&, float* scratch);
  int64_t (*gramScratch)(int64_t count);

  /// The sum of the squares of a [rows, columns] block.
  double (*squaredSum)(const float* block, int64_t rows, int64_t columns, int64_t stride);

  /// || sum over i < rows of dy[i, :] ||^2, dy [rows, p].
  double (*columnSumNorm)(const float* dy, int64_t rows, int64_t p);

  /// || sum over the linked rows row, next[row], ... (to -1) of dy[row, :] ||^2, dy [*, d].
  double (*chainNorm)(const float* dy, const int32_t* next, int32_t row, int64_t d);

  /// y [d] += scale * x [d].
  void (*addScaled)(float* y, const float* x, float scale, int64_t d);

  /// gradient [columns] += sum over i < count of factor * sum of the rows of sums[i], each the numbers whose norm
  /// columnSumNorm or chainNorm takes, rounded once. Row r is dy + r * stride, or dy + rows[r] * stride with `rows`.
  void (*addRowSums)(float* gradient, const float* dy, const int64_t* rows, const RowSum* sums, int64_t count,
                     int64_t columns, int64_t stride);

  /// sum over s, t of dLogits[t, ids[s]] * <dEmbedding[s, :], x[t, :]>; scratch takes headRows doubles.
  BoundedSum (*tiedCross)(const TiedRows&, double* scratch);
};

}  // namespace dp_moe
