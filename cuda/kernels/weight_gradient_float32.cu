#include "matrix_float32.h"
#include "weight_gradient_tiles.h"

// The sums of weightGradient over float32 rows: chains of fused multiply-adds of factor * dy and x, of kChainRows rows.

namespace dp_moe {

namespace {

template <int tileRows>
DEVICE void gradientBody(const WeightGradientKernelParams& p) {
  using Threads = ThreadTiles<tileRows>;
  constexpr MatrixTile shape = Threads::kTile;
  constexpr int bufferFloats = float32BufferFloats(shape);
  constexpr int rightFirst = Threads::kLeftLine * kFloat32Slab;
  DYNAMIC_SHARED(float, buffers);
  const auto* dy = static_cast<const float*>(p.dy);
  const auto* x = static_cast<const float*>(p.x);

  GroupWalk walk;
  for (auto number = static_cast<int32_t>(blockIdx.x);; number += static_cast<int32_t>(gridDim.x)) {
    const GradientTile tile = nextTile<shape.rows, shape.columns>(p, walk, number);
    if (tile.group < 0) return;
    const int slabs = (tile.count + kFloat32Slab - 1) / kFloat32Slab;
    Float32Share<shape.rows, false> left;
    Float32Share<shape.columns, false> right;
    const int64_t row = tile.firstRow + left.line(), column = tile.firstColumn + right.line();

    const auto fetch = [&](int slab) {
      UNROLL for (int i = 0; i < 8; ++i) {
        const int at = slab * kFloat32Slab + left.first() + i;
        const int64_t entry = tile.list + at;
        left.value[i] = 0;
        right.value[i] = 0;
        if (at < tile.count) {
          const int32_t xRow = p.xRow[entry];
          if (row < p.p) left.value[i] = dy[p.dyRow[entry] * p.p + row] * p.scale[entry];
          if (column < p.d && xRow >= 0) right.value[i] = x[xRow * p.d + column];
        }
      }
    };
    const auto store = [&](int slab) {
      float* buffer = buffers + slab % 2 * bufferFloats;
      left.store(buffer);
      right.store(buffer + rightFirst);
    };

    typename Threads::Sums total;
    typename Threads::Sums sums;
    Threads::clear(total);
    Threads::clear(sums);
    fetch(0);
    store(0);
    for (int slab = 0; slab < slabs; ++slab) {
      __syncthreads();  // the slab is there for all, and all have left the other buffer
      if (slab + 1 < slabs) fetch(slab + 1);
      const float* buffer = buffers + slab % 2 * bufferFloats;
      Threads::multiply(sums, buffer, buffer + rightFirst);
      if (slab + 1 < slabs) store(slab + 1);
      if ((slab + 1) % (kChainRows / kFloat32Slab) == 0 || slab + 1 == slabs) {
        UNROLL for (int i = 0; i < Threads::kRows; ++i) {
          UNROLL for (int j = 0; j < Threads::kColumns; ++j) total[i][j] += sums[i][j];
        }
        Threads::clear(sums);
      }
    }
    UNROLL for (int i = 0; i < Threads::kRows; ++i) {
      UNROLL for (int j = 0; j < Threads::kColumns; j += 2) {
        writeSums<2>(p, tile, Threads::row(i), Threads::column(j), {total[i][j], total[i][j + 1]}, p.packedStores);
      }
    }
  }
}

}  // namespace

KERNEL_BOUNDS(weight_gradient_wide_float32, WeightGradientKernelParams, 256, 1) { gradientBody<128>(p); }
KERNEL_BOUNDS(weight_gradient_narrow_float32, WeightGradientKernelParams, 128, 3) { gradientBody<64>(p); }

}  // namespace dp_moe
