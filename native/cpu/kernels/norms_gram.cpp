#include "kernels/dot_tile.h"
#include "kernels/lanes.h"
#include "kernels/matrix_kernels.h"
#include "kernels/norms.h"

// || dy' x ||_F^2 = sum over pairs of rows i, j of <x_i, x_j> <dy_i, dy_j>, each pair once.
//
// Rows are taken four at a time: a triangle within the block, tiles against each earlier block. Columns run in slices
// so that the rows of a segment stay in cache between tiles.
//
// The error bound. Let X_ij, G_ij be the exact dot products and X'_ij, G'_ij the computed ones. With e_x = dotError(d),
// e_g = dotError(p), h_x = dotUnderflow(d), h_g = dotUnderflow(p) (standard summation analysis, gradual underflow):
//   |X'_ij - X_ij| <= e_x |x_i| |x_j| + h_x,  |G'_ij - G_ij| <= e_g |dy_i| |dy_j| + h_g.
// Hence |sum X'G' - sum XG| <= (e_x + e_g + e_x e_g) m + (1 + e_g) h_x (sum |dy_i|)^2 + (1 + e_x) h_g (sum |x_i|)^2
// + n^2 h_x h_g, with m = (sum |x_i| |dy_i|)^2. The norms come from the computed diagonal, |x_i|^2 <= (X'_ii + h_x) /
// (1 - e_x), and (sum |dy_i|)^2 <= n sum |dy_i|^2. The final sum runs in double: its n^2 roundings of 2^-53 each add
// less than 2^-30 m (n < 2^11 in this form). kappa = (e_x + e_g + e_x e_g) / ((1 - e_x) (1 - e_g)) + 2^-30.

namespace dp_moe::DP_MOE_ISA {

namespace {

constexpr int64_t sliceColumns = 64 * W;
constexpr int64_t blockRows = 4;

/// One operand's rows.
struct Rows {
  const float* data;
  const int32_t* index;
  int64_t stride;
};

DP_MOE_INLINE void rowPointers(const Rows& rows, int64_t first, int64_t count, const float** out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = rows.data + (rows.index == nullptr ? first + i : rows.index[first + i]) * rows.stride;
  }
}

template <int count>
DP_MOE_INLINE float* dotsAgainst(const float* const* block, const Rows& rows, int64_t first, int64_t begin, int64_t end,
                                 float* out) {
  constexpr int columns = count <= 2 ? 4 : 2;  // at most eight chains, summed together
  for (int64_t other = first; other < first + blockRows; other += columns) {
    const float* right[columns];
    rowPointers(rows, other, columns, right);
    vf sum[8] = {};
    dotTile<count, columns>(block, right, begin, end, sum);
    reduceEight(sum, out, begin > 0);
    out += 8;
  }
  return out;
}

/// The dot products of one block of rows with itself and with all rows before it.
template <int count>
float* dotsOfBlock(const Rows& rows, int64_t first, int64_t begin, int64_t end, float* diagonal, float* pairs) {
  const float* block[count];
  rowPointers(rows, first, count, block);
  for (int64_t other = 0; other < first; other += blockRows) {
    pairs = dotsAgainst<count>(block, rows, other, begin, end, pairs);
  }
  vf sum[16] = {};  // the diagonal in the first eight: one tree for four sums costs as much
  dotTriangle<count>(block, begin, end, sum, sum + 8);
  reduceEight(sum, diagonal, begin > 0);
  if (count > 1) {
    reduceEight(sum + 8, pairs, begin > 0);
    pairs += 8;
  }
  return pairs;
}

int64_t blocksOf(int64_t count) { return (count + blockRows - 1) / blockRows; }

/// diagonal [8 blocks]: <row, row>, four of eight used; pairs: all other pairs once, unused lanes zero. Returns how
/// many pairs were written, the same for every operand of `count` rows.
int64_t allDots(const Rows& rows, int64_t count, float* diagonal, float* pairs) {
  float* end = pairs;
  int64_t begin = 0;
  do {
    const int64_t stop = begin + sliceColumns < rows.stride ? begin + sliceColumns : rows.stride;
    end = pairs;
    for (int64_t first = 0; first < count; first += blockRows) {
      float* const at = diagonal + 8 * (first / blockRows);
      switch (count - first < blockRows ? count - first : blockRows) {
        case 4:
          end = dotsOfBlock<4>(rows, first, begin, stop, at, end);
          break;
        case 3:
          end = dotsOfBlock<3>(rows, first, begin, stop, at, end);
          break;
        case 2:
          end = dotsOfBlock<2>(rows, first, begin, stop, at, end);
          break;
        default:
          end = dotsOfBlock<1>(rows, first, begin, stop, at, end);
          break;
      }
    }
    begin = stop;
  } while (begin < rows.stride);
  return end - pairs;
}

/// Relative error of an element of a tile of n rows against its sum of |dy||x|.
DP_MOE_INLINE double tileError(int64_t n) {
  const double roundings = static_cast<double>(smaller(n, outerChunkRows) + n / outerChunkRows + 2);
  return roundings * 0x1p-24 / (1 - roundings * 0x1p-24);
}

DP_MOE_INLINE double dotOfDoubles(const float* a, const float* b, int64_t count) {
  vd sum{};
  for (int64_t i = 0; i < count; i += WD) sum = fma(loadDoubles(a + i), loadDoubles(b + i), sum);
  return reduceAdd(sum);
}

}  // namespace

/// Diagonals and pairs of both operands; pairs of b blocks take at most 8 b (b - 1) + 8 b floats.
int64_t gramScratch(int64_t count) {
  const int64_t blocks = blocksOf(count);
  return 2 * (8 * blocks + 8 * blocks * blocks);
}

BoundedSum gram(const SegmentRows& segment, float* scratch) {
  const int64_t blocks = blocksOf(segment.count);
  float* const diagonalX = scratch;
  float* const diagonalDy = diagonalX + 8 * blocks;
  float* const pairsX = diagonalDy + 8 * blocks;
  float* const pairsDy = pairsX + 8 * blocks * blocks;
  allDots({segment.x, segment.xRows, segment.d}, segment.count, diagonalX, pairsX);
  const int64_t pairs = allDots({segment.dy, nullptr, segment.p}, segment.count, diagonalDy, pairsDy);

  const double errorX = dotError(segment.d, sliceColumns), errorDy = dotError(segment.p, sliceColumns);
  const double underflowX = dotUnderflow(segment.d), underflowDy = dotUnderflow(segment.p);
  vd products{}, squaresX{}, squaresDy{};
  for (int64_t i = 0; i < 8 * blocks; i += WD) {
    const vd x = loadDoubles(diagonalX + i), dy = loadDoubles(diagonalDy + i);
    products += sqrt((x + underflowX) * (dy + underflowDy));
    squaresX += x;
    squaresDy += dy;
  }
  const double root = reduceAdd(products);
  const double kappa = (errorX + errorDy + errorX * errorDy) / ((1 - errorX) * (1 - errorDy)) + 0x1p-30;
  const double rows = static_cast<double>(segment.count);
  const double m = root * root;
  const double underflow = 1.01 * rows *
                           (underflowX * (reduceAdd(squaresDy) + rows * underflowDy) +
                            underflowDy * (reduceAdd(squaresX) + rows * underflowX));
  return {dotOfDoubles(diagonalX, diagonalDy, 8 * blocks) + 2 * dotOfDoubles(pairsX, pairsDy, pairs),
          kappa * m + underflow};
}

BoundedSum tiedCross(const TiedRows& rows, double* headNorms) {
  constexpr int64_t wholeRow = INT64_MAX / 2;
  vf sum[8];
  float dots[8];
  for (int64_t t = 0; t < rows.headRows; ++t) {
    const float* row = rows.x + t * rows.d;
    for (vf& s : sum) s = vf{};
    dotTriangle<1>(&row, 0, rows.d, sum, sum + 1);
    headNorms[t] = __builtin_sqrt(static_cast<double>(reduceAdd(sum[0])) + dotUnderflow(rows.d));
  }
  double value = 0, bound = 0;
  // The head's tile is off too, by a rounding for each of its rows: it is the tile that is added to the sum.
  const double error = dotError(rows.d, wholeRow), relative = error / (1 - error) + tileError(rows.headRows);
  for (int64_t s = 0; s < rows.embeddingRows; ++s) {
    const float* embedding = rows.dEmbedding + s * rows.d;
    const float* logits = rows.dLogits + rows.ids[s];
    for (vf& v : sum) v = vf{};
    dotTriangle<1>(&embedding, 0, rows.d, sum, sum + 1);
    const double norm = __builtin_sqrt(static_cast<double>(reduceAdd(sum[0])) + dotUnderflow(rows.d));
    double weighted = 0;
    for (int64_t t = 0; t < rows.headRows; t += 8) {
      const int64_t count = rows.headRows - t < 8 ? rows.headRows - t : 8;
      const float* right[8];
      for (int64_t i = 0; i < 8; ++i) right[i] = rows.x + (t + (i < count ? i : 0)) * rows.d;
      dotTile<1, 8>(&embedding, right, 0, rows.d, sum);
      reduceEight(sum, dots, false);
      for (int64_t i = 0; i < count; ++i) {
        const double logit = logits[(t + i) * rows.vocabulary];
        value += logit * static_cast<double>(dots[i]);
        weighted += __builtin_fabs(logit) * (relative * norm * headNorms[t + i] + dotUnderflow(rows.d));
      }
    }
    bound += weighted;
  }
  return {value, bound * (1 + 0x1p-20)};
}

}  // namespace dp_moe::DP_MOE_ISA
