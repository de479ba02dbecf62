#include "matrix_float32.h"
#include "matrix_output.h"

// matrixMultiply of float32 operands: one chain of fused multiply-adds over k for each element of y.

namespace dp_moe {

namespace {

/// Eight neighbours of a line of which `left` exist, the rest 0.
DEVICE void fetchAlong(float (&value)[8], const float* from, int64_t left, bool packed) {
  UNROLL for (int i = 0; i < 8; i += 4) {
    if (packed) {
      const auto four = left > i ? loadPack<float, 4>(from + i) : Pack<float, 4>{};
      UNROLL for (int e = 0; e < 4; ++e) value[i + e] = four.value[e];
    } else {
      UNROLL for (int e = 0; e < 4; ++e) value[i + e] = i + e < left ? from[i + e] : 0.0f;
    }
  }
}

template <int tileRows, bool transposed>
DEVICE void multiplyBody(const MatrixMultiplyKernelParams& p) {
  using Threads = ThreadTiles<tileRows>;
  constexpr MatrixTile shape = Threads::kTile;
  constexpr int bufferFloats = float32BufferFloats(shape);
  constexpr int rightFirst = Threads::kLeftLine * kFloat32Slab;
  DYNAMIC_SHARED(float, buffers);
  const auto slabs = static_cast<int>((p.k + kFloat32Slab - 1) / kFloat32Slab);

  checkOffsets(p);
  GroupWalk walk;
  for (auto number = static_cast<int32_t>(blockIdx.x);; number += static_cast<int32_t>(gridDim.x)) {
    const ProductTile tile = nextTile<shape.rows, shape.columns>(p, walk, number);
    if (tile.group < 0) return;

    Float32Share<shape.rows, true> left;
    Float32Share<shape.columns, transposed> right;
    const int64_t row = tile.firstRow + left.line();
    const int64_t source = row < tile.lastRow ? sourceRow(p, row) : -1;
    const float* x = static_cast<const float*>(p.x) + (source < 0 ? 0 : source * p.k);
    const int64_t column = tile.firstColumn + right.line();
    const float* weight = static_cast<const float*>(p.weight) + tile.group * p.n * p.k;

    const auto fetch = [&](int slab) {
      const int64_t first = static_cast<int64_t>(slab) * kFloat32Slab;
      const int64_t k = first + left.first();
      fetchAlong(left.value, x + k, source < 0 ? 0 : p.k - k, p.packedLoads);
      const int64_t from = first + right.first();
      if constexpr (transposed) {
        fetchAlong(right.value, weight + column * p.k + from, column < p.n ? p.k - from : 0, p.packedLoads);
      } else {
        UNROLL for (int i = 0; i < 8; ++i) {
          right.value[i] = column < p.n && from + i < p.k ? weight[(from + i) * p.n + column] : 0.0f;
        }
      }
    };
    const auto store = [&](int slab) {
      float* buffer = buffers + slab % 2 * bufferFloats;
      left.store(buffer);
      right.store(buffer + rightFirst);
    };

    typename Threads::Sums sums;
    Threads::clear(sums);
    fetch(0);
    store(0);
    for (int slab = 0; slab < slabs; ++slab) {
      __syncthreads();  // the slab is there for all, and all have left the other buffer
      if (slab + 1 < slabs) fetch(slab + 1);
      const float* buffer = buffers + slab % 2 * bufferFloats;
      Threads::multiply(sums, buffer, buffer + rightFirst);
      if (slab + 1 < slabs) store(slab + 1);
    }

    __syncthreads();  // all have left the buffers, whose memory the sums pass through
    UNROLL for (int i = 0; i < Threads::kRows; ++i) {
      UNROLL for (int j = 0; j < Threads::kColumns; j += 4) {
        storePack<float, 4>(buffers + finishedAt<shape.columns>(Threads::row(i), Threads::column(j)),
                            {sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]});
      }
    }
    __syncthreads();  // the sums of all threads are there
    writeTile<float, shape.rows, shape.columns>(p, tile, 0, buffers);
  }
}

}  // namespace

KERNEL_BOUNDS(matrix_multiply_wide_transposed_float32, MatrixMultiplyKernelParams, 256, 1) {
  multiplyBody<128, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_wide_float32, MatrixMultiplyKernelParams, 256, 1) { multiplyBody<128, false>(p); }
KERNEL_BOUNDS(matrix_multiply_narrow_transposed_float32, MatrixMultiplyKernelParams, 128, 4) {
  multiplyBody<64, true>(p);
}
KERNEL_BOUNDS(matrix_multiply_narrow_float32, MatrixMultiplyKernelParams, 128, 4) { multiplyBody<64, false>(p); }

}  // namespace dp_moe
