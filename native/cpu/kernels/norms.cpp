#include "kernels/norms.h"

#include "kernels/simd.h"

// Norms of sums of rows. Sums and squares are taken in double: a sum that cancels keeps its digits.

namespace dp_moe::DP_MOE_ISA {

namespace {

constexpr int vectors = W == 16 ? 8 : 4;  // of doubles, as many as registers hold twice
constexpr int group = 4;                  // vectors of doubles at a time: on AVX2 one cache line of floats

DP_MOE_INLINE vd loadDoublesPartial(const float* p, int64_t n) { return lowerDoubles(loadPartial(p, n)); }

/// The squared norm of the sum of the rows that `next` steps through from row `first` on; -1 ends.
template <class Next>
DP_MOE_INLINE double sumNorm(const float* dy, int64_t columns, int64_t first, Next next) {
  vd squares{};
  for (int64_t column = 0; column < columns; column += group * WD) {
    const int64_t left = columns - column;
    vd sum[group] = {};
    if (left >= group * WD) {
      for (int64_t row = first; row >= 0; row = next(row)) {
        const float* source = dy + row * columns + column;
        for (int i = 0; i < group; ++i) sum[i] += loadDoubles(source + i * WD);
      }
    } else {
      for (int64_t row = first; row >= 0; row = next(row)) {
        const float* source = dy + row * columns + column;
        for (int i = 0; i < group; ++i) {
          const int64_t here = left - i * WD;
          if (here > 0) sum[i] += loadDoublesPartial(source + i * WD, here < WD ? here : WD);
        }
      }
    }
    for (int i = 0; i < group; ++i) squares = fma(sum[i], sum[i], squares);
  }
  return reduceAdd(squares);
}

double squaredSum(const float* block, int64_t rows, int64_t columns, int64_t stride) {
  vd low{}, high{};
  for (int64_t row = 0; row < rows; ++row) {
    const float* source = block + row * stride;
    for (int64_t column = 0; column < columns; column += W) {
      const int64_t left = columns - column;
      const vf value = left >= W ? load(source + column) : loadPartial(source + column, left);
      const vd a = lowerDoubles(value), b = upperDoubles(value);
      low = fma(a, a, low);
      high = fma(b, b, high);
    }
  }
  return reduceAdd(low + high);
}

double columnSumNorm(const float* dy, int64_t rows, int64_t p) {
  return sumNorm(dy, p, rows > 0 ? 0 : -1, [rows](int64_t row) { return row + 1 < rows ? row + 1 : -1; });
}

double chainNorm(const float* dy, const int32_t* next, int32_t row, int64_t d) {
  return sumNorm(dy, d, row, [next](int64_t at) { return static_cast<int64_t>(next[at]); });
}

/// gradient [columns of the block] += the sums, rounded once; the first `columns` of it, or all where it is `full`.
template <bool full, class RowAt>
DP_MOE_INLINE void addRowSumsOfBlock(float* gradient, const float* dy, const RowSum* sums, int64_t count,
                                     int64_t columns, int64_t stride, RowAt rowAt) {
  const auto read = [&](const float* row, int i) {
    if (full) return loadDoubles(row + i * WD);
    const int64_t left = columns - i * WD;
    return left > 0 ? loadDoublesPartial(row + i * WD, left < WD ? left : WD) : vd{};
  };
  vd total[vectors] = {};
  for (const RowSum* sum = sums; sum < sums + count; ++sum) {
    const float* source = dy + rowAt(sum->first) * stride;
    vd own[vectors];
    for (int i = 0; i < vectors; ++i) own[i] = read(source, i);
    for (int64_t row = sum->first + 1; row < sum->end; ++row) {
      source = dy + rowAt(row) * stride;
      for (int i = 0; i < vectors; ++i) own[i] += read(source, i);
    }
    const vd factor = broadcast(static_cast<double>(sum->factor));
    for (int i = 0; i < vectors; ++i) total[i] = fma(factor, own[i], total[i]);
  }
  for (int i = 0; i < vectors; i += 2) {
    float* at = gradient + i * WD;
    const int64_t left = columns - i * WD;
    if (full || left >= W) {
      store(at, toFloat(loadDoubles(at) + total[i], loadDoubles(at + WD) + total[i + 1]));
    } else if (left > 0) {
      const vf before = loadPartial(at, left);
      storePartial(at, toFloat(lowerDoubles(before) + total[i], upperDoubles(before) + total[i + 1]), left);
    }
  }
}

template <class RowAt>
DP_MOE_INLINE void addRowSumsAt(float* gradient, const float* dy, const RowSum* sums, int64_t count, int64_t columns,
                                int64_t stride, RowAt rowAt) {
  constexpr int64_t block = vectors * WD;
  int64_t column = 0;
  for (; column + block <= columns; column += block) {
    addRowSumsOfBlock<true>(gradient + column, dy + column, sums, count, block, stride, rowAt);
  }
  if (column < columns) {
    addRowSumsOfBlock<false>(gradient + column, dy + column, sums, count, columns - column, stride, rowAt);
  }
}

void addRowSums(float* gradient, const float* dy, const int64_t* rows, const RowSum* sums, int64_t count,
                int64_t columns, int64_t stride) {
  if (rows == nullptr) {
    addRowSumsAt(gradient, dy, sums, count, columns, stride, [](int64_t row) { return row; });
  } else {
    addRowSumsAt(gradient, dy, sums, count, columns, stride, [rows](int64_t row) { return rows[row]; });
  }
}

void addScaled(float* y, const float* x, float scale, int64_t d) {
  const vf factor = broadcast(scale);
  int64_t i = 0;
  for (; i + W <= d; i += W) store(y + i, fma(factor, load(x + i), load(y + i)));
  if (i < d) storePartial(y + i, fma(factor, loadPartial(x + i, d - i), loadPartial(y + i, d - i)), d - i);
}

}  // namespace

extern const NormKernels normKernels;
const NormKernels normKernels = {
    .gram = gram,
    .gramScratch = gramScratch,
    .squaredSum = squaredSum,
    .columnSumNorm = columnSumNorm,
    .chainNorm = chainNorm,
    .addScaled = addScaled,
    .addRowSums = addRowSums,
    .tiedCross = tiedCross,
};

}  // namespace dp_moe::DP_MOE_ISA
