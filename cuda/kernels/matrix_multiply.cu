#include "matrix_fragments.h"
#include "matrix_output.h"

// matrixMultiply of bfloat16 operands on tensor cores. Slabs of x and weight come into shared memory three ahead of the
// multiplication. Every element of y is one chain over k, in steps of 16, in a float32 accumulator, wherever in a tile
// it falls.

namespace dp_moe {

namespace {

/// This thread's share of a slab whose lines run along k: a piece of each of some lines.
template <int lines, int threads>
struct InnerSource {
  static constexpr int kPasses = lines * (kSlab / 8) / threads;
  static constexpr int kStep = lines / kPasses;
  const bfloat16* from[kPasses];  // this thread's piece of slab 0
  int64_t left[kPasses];          // elements from there to the end of the line; 0: no such line

  DEVICE static int line(int pass) { return static_cast<int>(threadIdx.x) / (kSlab / 8) + pass * kStep; }
  DEVICE static int piece() { return static_cast<int>(threadIdx.x) % (kSlab / 8); }

  DEVICE void set(int pass, const bfloat16* start, int64_t k, bool exists) {
    from[pass] = start + piece() * 8;
    left[pass] = exists ? k - piece() * 8 : 0;
  }
  template <bool packed>
  DEVICE void stage(Piece* slab, int64_t first) const {
    UNROLL for (int pass = 0; pass < kPasses; ++pass) {
      stagePiece<packed>(slab + InnerSlab<lines>::at(line(pass), piece()), from[pass] + first, left[pass] - first);
    }
  }
};

/// This thread's share of a slab whose lines run across k: the same piece of some lines.
template <int lines, int threads>
struct OuterSource {
  static constexpr int kPasses = lines / 8 * kSlab / threads;
  static constexpr int kStep = kSlab / kPasses;
  const bfloat16* from;  // this thread's piece of line 0
  int64_t count;         // elements from there to the end of the line
  int64_t k;
  int64_t stride;

  DEVICE static int line(int pass) { return static_cast<int>(threadIdx.x) / (lines / 8) + pass * kStep; }
  DEVICE static int piece() { return static_cast<int>(threadIdx.x) % (lines / 8); }

  template <bool packed>
  DEVICE void stage(Piece* slab, int64_t first) const {
    UNROLL for (int pass = 0; pass < kPasses; ++pass) {
      const int64_t at = first + line(pass);
      stagePiece<packed>(slab + OuterSlab<lines>::at(line(pass), piece()), from + at * stride, at < k ? count : 0);
    }
  }
};

template <class Warps, bool transposed, bool packed>
DEVICE void multiplyBody(const MatrixMultiplyKernelParams& p) {
  constexpr MatrixTile shape = Warps::kTile;
  using Left = InnerSlab<shape.rows>;
  using Right = std::conditional_t<transposed, InnerSlab<shape.columns>, OuterSlab<shape.columns>>;
  constexpr int leftPieces = shape.rows * kSlab / 8;
  constexpr int stagePieces = stageBytes(shape) / 16;
  constexpr int parts = shape.rows * shape.columns * 4 > kStages * stageBytes(shape) ? 2 : 1;
  constexpr int partRows = shape.rows / parts;
  static_assert(partRows * shape.columns * 4 <= kStages * stageBytes(shape));
  DYNAMIC_SHARED(Piece, stages);
  const auto* x = static_cast<const bfloat16*>(p.x);
  const auto slabs = static_cast<int>((p.k + kSlab - 1) / kSlab);

  checkOffsets(p);
  GroupWalk walk;
  for (auto number = static_cast<int32_t>(blockIdx.x);; number += static_cast<int32_t>(gridDim.x)) {
    const ProductTile tile = nextTile<shape.rows, shape.columns>(p, walk, number);
    if (tile.group < 0) return;

    InnerSource<shape.rows, shape.threads> left;
    UNROLL for (int pass = 0; pass < left.kPasses; ++pass) {
      const int64_t row = tile.firstRow + left.line(pass);
      const int64_t source = row < tile.lastRow ? sourceRow(p, row) : -1;
      left.set(pass, x + (source < 0 ? 0 : source * p.k), p.k, source >= 0);
    }
    const bfloat16* weight = static_cast<const bfloat16*>(p.weight) + tile.group * p.n * p.k;
    std::conditional_t<transposed, InnerSource<shape.columns, shape.threads>, OuterSource<shape.columns, shape.threads>>
        right;
    if constexpr (transposed) {
      UNROLL for (int pass = 0; pass < right.kPasses; ++pass) {
        const int64_t column = tile.firstColumn + right.line(pass);
        right.set(pass, weight + column * p.k, p.k, column < p.n);
      }
    } else {
      const int64_t column = tile.firstColumn + right.piece() * 8;
      right = {weight + column, p.n - column, p.k, p.n};
    }

    const auto stage = [&](int slab) {
      if (slab < slabs) {
        Piece* to = stages + slab % kStages * stagePieces;
        left.template stage<packed>(to, static_cast<int64_t>(slab) * kSlab);
        right.template stage<packed>(to + leftPieces, static_cast<int64_t>(slab) * kSlab);
      }
      commitAsync();
    };
    typename Warps::Sums sums;
    Warps::clear(sums);
    for (int slab = 0; slab < kStages - 1; ++slab) stage(slab);
    for (int slab = 0; slab < slabs; ++slab) {
      waitAsync<kStages - 2>();
      __syncthreads();  // the slab is there for all, and all have left the one whose place is filled next
      stage(slab + kStages - 1);
      const Piece* from = stages + slab % kStages * stagePieces;
      UNROLL for (int step = 0; step < kSlab / 16; ++step) {
        uint32_t b[Warps::kRight][2];
        Warps::template loadRight<Right>(b, from + leftPieces, step);
        Warps::template multiply<Left>(sums, from, b, step);
      }
    }

    auto* finished = reinterpret_cast<float*>(stages);
    UNROLL_BY(1) for (int part = 0; part < parts; ++part) {
      __syncthreads();  // all have left the last slab, or the part before: the sums pass through its memory
      if (parts == 1 || Warps::firstRow() == part * partRows) {
        const int firstRow = Warps::firstRow() - part * partRows + static_cast<int>(threadIdx.x % kWarp) / 4;
        const int firstColumn = Warps::firstColumn() + static_cast<int>(threadIdx.x % 4) * 2;
        UNROLL for (int i = 0; i < Warps::kLeft; ++i) {
          UNROLL for (int j = 0; j < Warps::kRight; ++j) {
            const int row = firstRow + i * 16, column = firstColumn + j * 8;
            const float(&sum)[4] = sums[i][j];
            storePack<float, 2>(finished + finishedAt<shape.columns>(row, column), {sum[0], sum[1]});
            storePack<float, 2>(finished + finishedAt<shape.columns>(row + 8, column), {sum[2], sum[3]});
          }
        }
      }
      __syncthreads();  // the sums of all warps are there
      writeTile<bfloat16, partRows, shape.columns>(p, tile, part * partRows, finished);
    }
  }
}

using Large = WarpTiles<128, 256, 64>;
using Wide = WarpTiles<128, 128, 64>;
using Narrow = WarpTiles<64, 64, 32>;

}  // namespace

KERNEL_BOUNDS(matrix_multiply_large_transposed_bfloat16, MatrixMultiplyKernelParams, 256, 1) {
  multiplyBody<Large, true, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_large_bfloat16, MatrixMultiplyKernelParams, 256, 1) {
  multiplyBody<Large, false, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_wide_transposed_bfloat16, MatrixMultiplyKernelParams, 128, 2) {
  multiplyBody<Wide, true, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_wide_bfloat16, MatrixMultiplyKernelParams, 128, 2) { multiplyBody<Wide, false, true>(p); }
KERNEL_BOUNDS(matrix_multiply_narrow_transposed_bfloat16, MatrixMultiplyKernelParams, 128, 4) {
  multiplyBody<Narrow, true, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_narrow_bfloat16, MatrixMultiplyKernelParams, 128, 4) {
  multiplyBody<Narrow, false, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_unpacked_transposed_bfloat16, MatrixMultiplyKernelParams, 128, 4) {
  multiplyBody<Narrow, true, false>(p);
}
KERNEL_BOUNDS(matrix_multiply_unpacked_bfloat16, MatrixMultiplyKernelParams, 128, 4) {
  multiplyBody<Narrow, false, false>(p);
}

}  // namespace dp_moe
