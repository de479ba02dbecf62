#include "dot_tiles.h"
#include "norms.h"

// || dy' x ||_F^2 = sum over pairs of rows i, j of <x_i, x_j> <dy_i, dy_j>, each pair of i > j once and twice over.
//
// The error bound. Let X_ij, G_ij be the exact dot products and X'_ij, G'_ij the computed ones. With e_x = dotError(d),
// e_g = dotError(p), h_x = dotUnderflow(d), h_g = dotUnderflow(p):
//   |X'_ij - X_ij| <= e_x |x_i| |x_j| + h_x,  |G'_ij - G_ij| <= e_g |dy_i| |dy_j| + h_g.
// Hence |sum X'G' - sum XG| <= (e_x + e_g + e_x e_g) m + (1 + e_g) h_x (sum |dy_i|)^2 + (1 + e_x) h_g (sum |x_i|)^2
// + n^2 h_x h_g, with m = (sum |x_i| |dy_i|)^2. The norms come from the computed diagonal, |x_i|^2 <= (X'_ii + h_x) /
// (1 - e_x), and (sum |dy_i|)^2 <= n sum |dy_i|^2. The final sum runs in double: its n^2 roundings of 2^-53 each add
// less than 2^-30 m (n < 2^11 in this form). kappa = (e_x + e_g + e_x e_g) / ((1 - e_x) (1 - e_g)) + 2^-30.

namespace dp_moe::norms {

constexpr double kGuard = 1e-3;        // error bound allowed in a Gram norm, relative to the norm
constexpr double kNegligible = 1e-60;  // a bound that no clipping threshold can tell from 0
constexpr int kShortWarps = kShortThreads / kWarp;
constexpr int kWarps = kLongThreads / kWarp;

/// What the tiles of a segment add up to.
struct GramSums {
  double value;      // of the products
  double root;       // sum |x_i| |dy_i|
  double squaresX;   // sum |x_i|^2
  double squaresDy;  // sum |dy_i|^2

  DEVICE void add(const GramSums& other) {
    value += other.value;
    root += other.root;
    squaresX += other.squaresX;
    squaresDy += other.squaresDy;
  }
  DEVICE GramSums overWarp() const { return {warpSum(value), warpSum(root), warpSum(squaresX), warpSum(squaresDy)}; }
};

/// The rows of a segment; none where its offsets are wrong or x has no row at all to point to.
DEVICE UnitRows rowsOfSegment(const SegmentOperands& operands, int64_t segment) {
  const UnitRows rows = unitRows(operands.offsets, segment, operands.rows, operands.wrongOffsets);
  if (rows.first == rows.last || operands.xCount > 0) return rows;
  report(operands.wrongRow, operands.xRows[rows.first]);
  return {0, 0};
}

template <class T>
struct SegmentRowsPair {
  TileRows<T> dy;
  TileRows<T> x;
};

template <class T>
DEVICE SegmentRowsPair<T> rowsOf(const SegmentOperands& operands, const UnitRows& rows) {
  const auto count = static_cast<int32_t>(rows.last - rows.first);
  const auto* dy = static_cast<const T*>(operands.dy) + rows.first * operands.p;
  const auto* x = static_cast<const T*>(operands.x);
  if (operands.xRows == nullptr) x += rows.first * operands.d;
  return {{dy, nullptr, operands.p, 0, count, operands.packedDy, operands.wrongRow},
          {x, operands.xRows == nullptr ? nullptr : operands.xRows + rows.first, operands.d, operands.xCount, count,
           operands.packedX, operands.wrongRow}};
}

/// Adds the pairs (i, j), i >= j, of the tile of rows from `firstRow` and from `firstColumn` on.
template <class T, class Tile>
DEVICE void addTile(const SegmentRowsPair<T>& rows, int firstRow, int firstColumn, GramSums& sums) {
  float x[Tile::values], dy[Tile::values];
  tileDots<Tile>(rows.x, firstRow, rows.x, firstColumn, x);
  tileDots<Tile>(rows.dy, firstRow, rows.dy, firstColumn, dy);
  const double lostX = dotUnderflow<T>(rows.x.columns), lostDy = dotUnderflow<T>(rows.dy.columns);
  UNROLL
  for (int v = 0; v < Tile::values; ++v) {
    int row, column;
    const bool mine = Tile::place(v, row, column);
    const int i = firstRow + row, j = firstColumn + column;
    if (!mine || i >= rows.dy.count || j > i) continue;
    const auto left = static_cast<double>(x[v]), right = static_cast<double>(dy[v]);
    sums.value += (i == j ? 1.0 : 2.0) * (left * right);
    if (i != j) continue;
    sums.root += sqrt((left + lostX) * (right + lostDy));
    sums.squaresX += left;
    sums.squaresDy += right;
  }
}

/// The upper bound of the norm, or the mark that the Gram form may have lost too many digits.
template <class T>
DEVICE void conclude(const GramParams& p, int64_t segment, int32_t count, const GramSums& sums) {
  const double errorX = dotError<T>(p.operands.d), errorDy = dotError<T>(p.operands.p);
  const double lostX = dotUnderflow<T>(p.operands.d), lostDy = dotUnderflow<T>(p.operands.p);
  const double kappa = (errorX + errorDy + errorX * errorDy) / ((1 - errorX) * (1 - errorDy)) + 0x1p-30;
  const auto rows = static_cast<double>(count);
  const double lost =
      1.01 * rows * (lostX * (sums.squaresDy + rows * lostDy) + lostDy * (sums.squaresX + rows * lostX));
  const double bound = kappa * (sums.root * sums.root) + lost;
  const bool negligible = !(bound > kNegligible);
  // The true norm is at least value - bound: a bound of a thousandth of that is at most two thousandths too much.
  const bool kept = negligible || !isfinite(sums.value) || bound <= kGuard * (sums.value - bound);
  p.values[segment] = negligible ? sums.value : sums.value + bound;
  p.marks[segment] = kept ? 0 : 1;
  if (!kept && p.tileOf != nullptr) p.tileOf[segment] = kTileOfRows;
}

template <class T>
DEVICE void gramOfShortBody(const GramParams& p) {
  using Tiles = DotTiles<T>;
  const int64_t segment = static_cast<int64_t>(blockIdx.x) * kShortWarps + threadIdx.x / kWarp;
  if (segment >= p.operands.segments) return;
  const UnitRows unit = rowsOfSegment(p.operands, segment);
  const auto count = static_cast<int32_t>(unit.last - unit.first);
  const bool first = threadIdx.x % kWarp == 0;
  if (count >= p.fewest || count > Tiles::Small::rows) {
    if (first && count >= p.fewest) p.marks[segment] = 0;
    return;
  }
  GramSums sums = {};
  if (count > Tiles::Smallest::rows) {
    addTile<T, typename Tiles::Small>(rowsOf<T>(p.operands, unit), 0, 0, sums);
  } else if (count > 0) {
    addTile<T, typename Tiles::Smallest>(rowsOf<T>(p.operands, unit), 0, 0, sums);
  }
  sums = sums.overWarp();
  if (first) conclude<T>(p, segment, count, sums);
}
KERNEL_BOUNDS(gramOfShort_float32, GramParams, kShortThreads, 1) { gramOfShortBody<float>(p); }
KERNEL_BOUNDS(gramOfShort_bfloat16, GramParams, kShortThreads, 3) { gramOfShortBody<bfloat16>(p); }

/// Warps share the tiles of each segment: tile t is for the warp (t + place of the segment) % 4, whose sums stand in
/// parts[4 place + t % 4], so that the order of a segment's sums does not depend on its place.
template <class T>
DEVICE void gramOfLongBody(const GramParams& p, GramSums* parts) {
  using Tile = typename DotTiles<T>::Large;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t firstSegment = static_cast<int64_t>(blockIdx.x) * p.segmentsPerBlock;
  const auto rowsIn = [&](int place) {
    if (firstSegment + place >= p.operands.segments) return UnitRows{0, 0};
    return rowsOfSegment(p.operands, firstSegment + place);
  };
  const auto isLong = [&](int64_t count) { return count > DotTiles<T>::Small::rows && count < p.fewest; };
  for (int place = 0; place < p.segmentsPerBlock; ++place) {
    const UnitRows unit = rowsIn(place);
    if (!isLong(unit.last - unit.first)) continue;
    const SegmentRowsPair<T> rows = rowsOf<T>(p.operands, unit);
    const int own = (warp + kMostSegmentsPerBlock - place) % kWarps;
    GramSums sums = {};
    int tile = 0;
    for (int i = 0; i < rows.dy.count; i += Tile::rows) {
      for (int j = 0; j < i + Tile::rows; j += Tile::columns) {
        if (tile++ % kWarps == own) addTile<T, Tile>(rows, i, j, sums);
      }
    }
    sums = sums.overWarp();
    if (threadIdx.x % kWarp == 0) parts[place * kWarps + own] = sums;
  }
  __syncthreads();
  const int place = static_cast<int>(threadIdx.x);
  if (place >= p.segmentsPerBlock) return;
  const UnitRows unit = rowsIn(place);
  if (!isLong(unit.last - unit.first)) return;
  GramSums sums = parts[place * kWarps];
  for (int w = 1; w < kWarps; ++w) sums.add(parts[place * kWarps + w]);
  conclude<T>(p, firstSegment + place, static_cast<int32_t>(unit.last - unit.first), sums);
}
KERNEL_BOUNDS(gramOfLong_float32, GramParams, kLongThreads, 2) {
  SHARED(GramSums, parts, kMostSegmentsPerBlock * kWarps);
  gramOfLongBody<float>(p, parts);
}
KERNEL_BOUNDS(gramOfLong_bfloat16, GramParams, kLongThreads, 3) {
  SHARED(GramSums, parts, kMostSegmentsPerBlock * kWarps);
  gramOfLongBody<bfloat16>(p, parts);
}

}  // namespace dp_moe::norms
