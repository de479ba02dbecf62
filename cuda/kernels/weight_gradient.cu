#include "matrix_fragments.h"
#include "weight_gradient_tiles.h"

// The sums of weightGradient over bfloat16 rows, on tensor cores.
//
// A factor may not be rounded to bfloat16, so it meets float32 numbers only. Rows come 16 at a time. Where the 16 are
// of one unit, or of two, their products are summed unscaled in `sums` (the rows of the other unit masked), and when
// the factor changes, total = factor * sums + total. Where more units meet in 16 rows, that many sums would cost more
// than scaling x: factor * x in float32 is cut into three bfloat16 numbers whose sum it is exactly, and three products
// are taken with factor 1. Either way the error is that of a float32 sum of float32 products. Every kChainRows rows
// `sums` goes into `total` too, so that no chain of tensor core additions, which round towards zero, is long.

namespace dp_moe {

namespace {

constexpr int kStepRows = 16;
constexpr uint32_t kAllRows = 0xffff;

/// total += factor * sums; sums = 0.
template <class Warps>
DEVICE void fold(typename Warps::Sums& total, typename Warps::Sums& sums, float factor) {
  UNROLL for (int i = 0; i < Warps::kLeft; ++i) {
    UNROLL for (int j = 0; j < Warps::kRight; ++j) {
      UNROLL for (int e = 0; e < 4; ++e) {
        total[i][j][e] = fmaf(factor, sums[i][j][e], total[i][j][e]);
        sums[i][j][e] = 0;
      }
    }
  }
}

/// The bits of a pair of rows that are set in `rows`, as a mask for the pair.
DEVICE uint32_t maskOfPair(uint32_t rows, int first) {
  return (rows >> first & 1 ? 0xffffu : 0u) | (rows >> (first + 1) & 1 ? 0xffff0000u : 0u);
}

/// value = high + middle + low, each with the 8 leading bits of what is left, as the upper halves of floats.
struct Thirds {
  uint32_t high, middle, low;
};
DEVICE Thirds thirds(float value) {
  constexpr uint32_t upper = 0xffff0000;
  const uint32_t high = __float_as_uint(value) & upper;
  const float left = value - __uint_as_float(high);
  const uint32_t middle = __float_as_uint(left) & upper;
  return {high, middle, __float_as_uint(left - __uint_as_float(middle)) & upper};
}

/// What a warp multiplies in one step: 16 rows from shared memory.
template <class Warps>
struct Step {
  const Piece* dy;
  const Piece* x;
  const float* factors;  // of the 16 rows; null: all 1
  int number;
};

template <class Warps>
DEVICE void multiplyStep(typename Warps::Sums& total, typename Warps::Sums& sums, float& factor,
                         const Step<Warps>& step) {
  using Left = OuterSlab<Warps::kTile.rows>;
  using Right = OuterSlab<Warps::kTile.columns>;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int pair = lane % 4 * 2;  // the first of this thread's rows; the others are pair + 1, + 8 and + 9
  uint32_t b[Warps::kRight][2];
  Warps::template loadRight<Right>(b, step.x, step.number);

  float own = 1;
  uint32_t changes = 0;  // rows whose factor is not that of the row before
  if (step.factors != nullptr) {
    own = step.factors[lane % kStepRows];
    const float before = __shfl_up_sync(kFullMask, own, 1);
    changes = __ballot_sync(kFullMask, lane > 0 && own != before) & kAllRows;
  }
  if (__popc(changes) <= 1) {
    for (uint32_t left = kAllRows; left != 0;) {
      const uint32_t rows = left == kAllRows && changes != 0 ? changes - 1 : left;
      left &= ~rows;
      const float next = __shfl_sync(kFullMask, own, __ffs(static_cast<int>(rows)) - 1);
      if (next != factor) {
        fold<Warps>(total, sums, factor);
        factor = next;
      }
      const uint32_t masks[2] = {maskOfPair(rows, pair), maskOfPair(rows, pair + 8)};
      uint32_t masked[Warps::kRight][2];
      UNROLL for (int j = 0; j < Warps::kRight; ++j) {
        UNROLL for (int r = 0; r < 2; ++r) masked[j][r] = b[j][r] & masks[r];
      }
      Warps::template multiply<Left>(sums, step.dy, masked, step.number);
    }
    return;
  }

  if (factor != 1.0f) {
    fold<Warps>(total, sums, factor);
    factor = 1;
  }
  uint32_t parts[3][Warps::kRight][2];
  UNROLL for (int r = 0; r < 2; ++r) {
    const float first = __shfl_sync(kFullMask, own, pair + r * 8);
    const float second = __shfl_sync(kFullMask, own, pair + r * 8 + 1);
    UNROLL for (int j = 0; j < Warps::kRight; ++j) {
      const Thirds a = thirds(first * __uint_as_float(b[j][r] << 16));
      const Thirds c = thirds(second * __uint_as_float(b[j][r] & 0xffff0000u));
      parts[0][j][r] = a.high >> 16 | c.high;
      parts[1][j][r] = a.middle >> 16 | c.middle;
      parts[2][j][r] = a.low >> 16 | c.low;
    }
  }
  UNROLL for (int part = 0; part < 3; ++part) Warps::template multiply<Left>(sums, step.dy, parts[part], step.number);
}

template <int tileRows, bool packed>
DEVICE void gradientBody(const WeightGradientKernelParams& p) {
  using Warps = WarpTiles<tileRows, tileRows, 32>;
  constexpr MatrixTile shape = Warps::kTile;
  using Slab = OuterSlab<shape.rows>;
  static_assert(shape.rows == shape.columns, "a thread copies the same piece of dy and of x");
  constexpr int xFirst = shape.rows * kSlab / 8;
  constexpr int stagePieces = stageBytes(shape) / 16;
  constexpr int passes = Slab::kPieces * kSlab / shape.threads;
  constexpr int passLines = kSlab / passes;
  DYNAMIC_SHARED(Piece, stages);
  auto* factors = reinterpret_cast<float*>(stages + kStages * stagePieces);
  const auto thread = static_cast<int>(threadIdx.x);
  const int line = thread / Slab::kPieces, piece = thread % Slab::kPieces;
  const bool scaled = p.factor != nullptr;

  GroupWalk walk;
  for (auto number = static_cast<int32_t>(blockIdx.x);; number += static_cast<int32_t>(gridDim.x)) {
    const GradientTile tile = nextTile<shape.rows, shape.columns>(p, walk, number);
    if (tile.group < 0) return;
    const int slabs = (tile.count + kSlab - 1) / kSlab;
    const int64_t row = tile.firstRow + piece * 8, column = tile.firstColumn + piece * 8;
    const bfloat16* dy = static_cast<const bfloat16*>(p.dy) + row;
    const bfloat16* x = static_cast<const bfloat16*>(p.x) + column;

    // Which rows a slab is made of is looked up one slab before they are copied.
    int32_t dyRow[passes];
    int32_t xRow[passes];
    float factor = 0;
    const auto lookUp = [&](int slab) {
      UNROLL for (int pass = 0; pass < passes; ++pass) {
        const int at = slab * kSlab + line + pass * passLines;
        dyRow[pass] = at < tile.count ? p.dyRow[tile.list + at] : -1;
        xRow[pass] = at < tile.count ? p.xRow[tile.list + at] : -1;
      }
      // Rows past the end are 0 and take the last factor, so that no step has one more.
      if (scaled && thread < kSlab) factor = p.scale[tile.list + min(slab * kSlab + thread, tile.count - 1)];
    };
    const auto stage = [&](int slab) {
      if (slab < slabs) {
        Piece* to = stages + slab % kStages * stagePieces;
        UNROLL for (int pass = 0; pass < passes; ++pass) {
          const int at = Slab::at(line + pass * passLines, piece);
          stagePiece<packed>(to + at, dy + max(dyRow[pass], 0) * p.p, dyRow[pass] < 0 ? 0 : p.p - row);
          stagePiece<packed>(to + xFirst + at, x + max(xRow[pass], 0) * p.d, xRow[pass] < 0 ? 0 : p.d - column);
        }
        if (scaled && thread < kSlab) factors[slab % kStages * kSlab + thread] = factor;
        lookUp(slab + 1);
      }
      commitAsync();
    };

    typename Warps::Sums total;
    typename Warps::Sums sums;
    Warps::clear(total);
    Warps::clear(sums);
    float runFactor = 0;  // no row has it
    lookUp(0);
    for (int slab = 0; slab < kStages - 1; ++slab) stage(slab);
    for (int slab = 0; slab < slabs; ++slab) {
      waitAsync<kStages - 2>();
      __syncthreads();  // the slab is there for all, and all have left the one whose place is filled next
      stage(slab + kStages - 1);
      if (slab % (kChainRows / kSlab) == 0) fold<Warps>(total, sums, runFactor);
      const Piece* from = stages + slab % kStages * stagePieces;
      const float* factorsOfSlab = scaled ? factors + slab % kStages * kSlab : nullptr;
      UNROLL_BY(1) for (int step = 0; step < kSlab / kStepRows; ++step) {
        multiplyStep<Warps>(total, sums, runFactor,
                            {from, from + xFirst, scaled ? factorsOfSlab + step * kStepRows : nullptr, step});
      }
    }
    fold<Warps>(total, sums, runFactor);

    const int lane = thread % kWarp;
    UNROLL for (int i = 0; i < Warps::kLeft; ++i) {
      UNROLL for (int j = 0; j < Warps::kRight; ++j) {
        const int r = Warps::firstRow() + i * 16 + lane / 4;
        const int c = Warps::firstColumn() + j * 8 + lane % 4 * 2;
        const float(&sum)[4] = total[i][j];
        writeSums<2>(p, tile, r, c, {sum[0], sum[1]}, p.packedStores);
        writeSums<2>(p, tile, r + 8, c, {sum[2], sum[3]}, p.packedStores);
      }
    }
  }
}

}  // namespace

KERNEL_BOUNDS(weight_gradient_wide_bfloat16, WeightGradientKernelParams, 256, 1) { gradientBody<128, true>(p); }
KERNEL_BOUNDS(weight_gradient_narrow_bfloat16, WeightGradientKernelParams, 128, 3) { gradientBody<64, true>(p); }
KERNEL_BOUNDS(weight_gradient_unpacked_bfloat16, WeightGradientKernelParams, 128, 3) { gradientBody<64, false>(p); }

}  // namespace dp_moe
