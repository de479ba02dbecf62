#include "kernels/matrix.h"
#include "kernels/matrix_tile.h"

// A weight in panels of panelWidth columns (the last one W wide where that is enough): panel[k][column], columns past
// the end zero. One pass over the weight per call, shared by all rows and threads.

namespace dp_moe::DP_MOE_ISA {

namespace {

typedef float quad __attribute__((vector_size(16)));

// Four rows of 16 source floats at a time: whole cache lines are read, and the panel lines stay in the first level.
constexpr int64_t lineFloats = 16;

/// panel[j * width + i] = rows[i][j] for 4 rows and 4 values.
DP_MOE_INLINE void transposeQuads(const float* const* rows, int64_t k, float* panel, int64_t width) {
  const quad a = loadAs<quad>(rows[0] + k), b = loadAs<quad>(rows[1] + k);
  const quad c = loadAs<quad>(rows[2] + k), d = loadAs<quad>(rows[3] + k);
  const quad ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const quad cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const quad out[4] = {__builtin_shufflevector(ab0, cd0, 0, 1, 4, 5), __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7),
                       __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5), __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7)};
  for (int j = 0; j < 4; ++j) __builtin_memcpy(panel + j * width, &out[j], sizeof(quad));
}

/// `columns` rows of a [n, k] weight become the columns of one panel.
void packTransposed(const float* weight, int64_t k, int64_t columns, int64_t width, float* panel) {
  for (int64_t firstK = 0; firstK < k; firstK += lineFloats) {
    const int64_t endK = firstK + lineFloats < k ? firstK + lineFloats : k;
    for (int64_t column = 0; column < width; column += 4) {
      int64_t at = firstK;
      if (column + 4 <= columns) {
        const float* const rows[4] = {weight + column * k, weight + (column + 1) * k, weight + (column + 2) * k,
                                      weight + (column + 3) * k};
        for (; at + 4 <= endK; at += 4) transposeQuads(rows, at, panel + at * width + column, width);
      }
      for (; at < endK; ++at) {
        for (int64_t i = column; i < column + 4; ++i) panel[at * width + i] = i < columns ? weight[i * k + at] : 0.0f;
      }
    }
  }
}

/// `columns` columns of a [k, n] weight become one panel.
void packPlain(const float* weight, int64_t k, int64_t n, int64_t columns, int64_t width, float* panel) {
  for (int64_t at = 0; at < k; ++at) {
    for (int64_t column = 0; column < width; column += W) {
      const int64_t left = columns - column;
      const float* source = weight + at * n + column;
      store(panel + at * width + column, left >= W ? load(source) : loadPartial(source, left > 0 ? left : 0));
    }
  }
}

}  // namespace

void packWeight(const float* weight, int64_t k, int64_t n, bool transposed, int64_t first, int64_t columns,
                float* packed) {
  for (int64_t column = 0; column < columns; column += panelWidth) {
    const int64_t here = columns - column < panelWidth ? columns - column : panelWidth;
    const int64_t width = here > W ? panelWidth : W;
    if (transposed) {
      packTransposed(weight + (first + column) * k, k, here, width, packed + column * k);
    } else {
      packPlain(weight + first + column, k, n, here, width, packed + column * k);
    }
  }
}

}  // namespace dp_moe::DP_MOE_ISA
