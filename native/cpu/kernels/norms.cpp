#include "kernels/norms.h"

#include "kernels/simd.h"

// Norms of sums of rows. Sums and squares are taken in double: a sum that cancels keeps its digits.

namespace dp_moe::DP_MOE_ISA {

namespace {

constexpr int group = 4;  // vectors of doubles at a time: on AVX2 one cache line of floats

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

template <class RowAt>
DP_MOE_INLINE void addRowSumsAt(float* gradient, const float* dy, const RowSum* sums, int64_t count, int64_t columns,
                                int64_t stride, RowAt rowAt) {
  for (int64_t column = 0; column < columns; column += group * WD) {
    const int64_t left = columns - column;
    int64_t valid[group];
    for (int i = 0; i < group; ++i) {
      const int64_t here = left - i * WD;
      valid[i] = here < 0 ? 0 : here < WD ? here : WD;
    }
    vd total[group] = {};
    for (const RowSum* sum = sums; sum < sums + count; ++sum) {
      vd own[group] = {};
      if (left >= group * WD) {
        for (int64_t row = sum->first; row < sum->end; ++row) {
          const float* source = dy + rowAt(row) * stride + column;
          for (int i = 0; i < group; ++i) own[i] += loadDoubles(source + i * WD);
        }
      } else {
        for (int64_t row = sum->first; row < sum->end; ++row) {
          const float* source = dy + rowAt(row) * stride + column;
          for (int i = 0; i < group; ++i) {
            if (valid[i] > 0) own[i] += loadDoublesPartial(source + i * WD, valid[i]);
          }
        }
      }
      const vd factor = broadcast(static_cast<double>(sum->factor));
      for (int i = 0; i < group; ++i) total[i] = fma(factor, own[i], total[i]);
    }
    for (int i = 0; i < group; i += 2) {
      const int64_t here = valid[i] + valid[i + 1];
      if (here == 0) continue;
      float* at = gradient + column + i * WD;
      const vf before = loadPartial(at, here);
      storePartial(at, toFloat(lowerDoubles(before) + total[i], upperDoubles(before) + total[i + 1]), here);
    }
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
