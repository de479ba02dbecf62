#pragma once

#include <cstdint>

#include "kernel.h"
#include "real.h"
#include "unroll.h"

// Products of one warp, 16 rows at a time, with float32 sums. Each sum is one chain over the depth in rising order. In
// bfloat16 they run on the tensor cores, in float32 as fused multiply-adds; where a sum lies is the same:
// sums[j][0..1] are (row g, columns 8 j + t, t + 1), sums[j][2..3] (row g + 8, same columns), with g = lane / 4 and
// t = 2 (lane % 4).

namespace dp_moe {

/// Two floats rounded to bfloat16, `low` in the lower half.
DEVICE uint32_t packBfloat16(float low, float high) {
#ifdef __CUDACC__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return toBfloat16(low).bits | static_cast<uint32_t>(toBfloat16(high).bits) << 16;
#endif
}

/// sums[i] += a_i b' for the row tiles i < tiles: a_i [16, depth] starts tileStep elements behind a_(i-1),
/// b [columns, depth]. Rows of both lie `stride` elements apart in shared memory.
template <int tiles, int columns, int depth>
DEVICE void multiplyRows(float (*sums)[columns / 8][4], const bfloat16* a, int tileStep, const bfloat16* b,
                         int stride) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const bfloat16* aRow = a + lane % 16 * stride + lane / 16 * 8;
  const bfloat16* bRow = b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
  UNROLL for (int k = 0; k < depth; k += 16) {
    uint32_t rows[tiles][4];
    UNROLL for (int i = 0; i < tiles; ++i) loadMatrix4(rows[i], aRow + i * tileStep + k);
    UNROLL for (int j = 0; j < columns / 8; j += 2) {
      uint32_t pair[4];
      loadMatrix4(pair, bRow + j * 8 * stride + k);
      UNROLL for (int i = 0; i < tiles; ++i) {
        multiplyAccumulate(sums[i][j], rows[i], {pair[0], pair[1]});
        multiplyAccumulate(sums[i][j + 1], rows[i], {pair[2], pair[3]});
      }
    }
  }
}

template <int tiles, int columns, int depth>
DEVICE void multiplyRows(float (*sums)[columns / 8][4], const float* a, int tileStep, const float* b, int stride) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const float* aRow = a + lane / 4 * stride;
  const float* bRow = b + lane % 4 * 2 * stride;
  UNROLL for (int i = 0; i < tiles; ++i) {
    for (int k = 0; k < depth; k += 4) {
      const Pack<float, 4> upper = loadPack<float, 4>(aRow + i * tileStep + k);
      const Pack<float, 4> lower = loadPack<float, 4>(aRow + i * tileStep + 8 * stride + k);
      UNROLL for (int j = 0; j < columns / 8; ++j) {
        const Pack<float, 4> even = loadPack<float, 4>(bRow + j * 8 * stride + k);
        const Pack<float, 4> odd = loadPack<float, 4>(bRow + (j * 8 + 1) * stride + k);
        UNROLL for (int n = 0; n < 4; ++n) {
          sums[i][j][0] = fmaf(upper.value[n], even.value[n], sums[i][j][0]);
          sums[i][j][1] = fmaf(upper.value[n], odd.value[n], sums[i][j][1]);
          sums[i][j][2] = fmaf(lower.value[n], even.value[n], sums[i][j][2]);
          sums[i][j][3] = fmaf(lower.value[n], odd.value[n], sums[i][j][3]);
        }
      }
    }
  }
}

/// sums[i] += weights_i b for the row tiles i < tiles: weights_i [16, depth] lie as sums do and are rounded to the type
/// of b [depth, columns], whose rows lie `stride` elements apart in shared memory.
/// In float32 they are spread over the warp through `scratch`, 16 * (depth + 4) floats of its own.
template <int tiles, int columns, int depth>
DEVICE void multiplyWeights(float (*sums)[columns / 8][4], const float (*weights)[depth / 8][4], const bfloat16* b,
                            int stride, [[maybe_unused]] float* scratch) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const bfloat16* bRow = b + lane % 16 * stride + lane / 16 * 8;
  UNROLL for (int k = 0; k < depth; k += 16) {
    uint32_t rows[tiles][4];
    UNROLL for (int i = 0; i < tiles; ++i) {
      const auto& left = weights[i][k / 8];
      const auto& right = weights[i][k / 8 + 1];
      rows[i][0] = packBfloat16(left[0], left[1]);
      rows[i][1] = packBfloat16(left[2], left[3]);
      rows[i][2] = packBfloat16(right[0], right[1]);
      rows[i][3] = packBfloat16(right[2], right[3]);
    }
    UNROLL for (int j = 0; j < columns / 8; j += 2) {
      uint32_t pair[4];
      loadMatrix4Transposed(pair, bRow + k * stride + j * 8);
      UNROLL for (int i = 0; i < tiles; ++i) {
        multiplyAccumulate(sums[i][j], rows[i], {pair[0], pair[1]});
        multiplyAccumulate(sums[i][j + 1], rows[i], {pair[2], pair[3]});
      }
    }
  }
}

template <int tiles, int columns, int depth>
DEVICE void multiplyWeights(float (*sums)[columns / 8][4], const float (*weights)[depth / 8][4], const float* b,
                            int stride, float* scratch) {
  constexpr int kStride = depth + 4;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int column = lane % 4 * 2;
  float* upper = scratch + lane / 4 * kStride;
  float* lower = upper + 8 * kStride;
  UNROLL for (int i = 0; i < tiles; ++i) {
    __syncwarp();  // the warp is done with the weights before
    UNROLL for (int j = 0; j < depth / 8; ++j) {
      UNROLL for (int n = 0; n < 2; ++n) {
        upper[j * 8 + column + n] = weights[i][j][n];
        lower[j * 8 + column + n] = weights[i][j][2 + n];
      }
    }
    __syncwarp();
    for (int k = 0; k < depth; k += 4) {
      const Pack<float, 4> above = loadPack<float, 4>(upper + k);
      const Pack<float, 4> below = loadPack<float, 4>(lower + k);
      UNROLL for (int n = 0; n < 4; ++n) {
        UNROLL for (int j = 0; j < columns / 8; ++j) {
          const Pack<float, 2> values = loadPack<float, 2>(b + (k + n) * stride + column + j * 8);
          sums[i][j][0] = fmaf(above.value[n], values.value[0], sums[i][j][0]);
          sums[i][j][1] = fmaf(above.value[n], values.value[1], sums[i][j][1]);
          sums[i][j][2] = fmaf(below.value[n], values.value[0], sums[i][j][2]);
          sums[i][j][3] = fmaf(below.value[n], values.value[1], sums[i][j][3]);
        }
      }
    }
  }
}

}  // namespace dp_moe
