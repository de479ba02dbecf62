#pragma once

#include "kernel.h"
#include "reductions.h"

// The softmax of one row by one warp: lane l has elements l, l + 32, ... of the row, and writes no others.

namespace dp_moe {

/// sum_i exp(x_i - max), in [1, d].
struct ExponentialSum {
  float max;
  float sum;
};

DEVICE ExponentialSum exponentialSumOfRow(const float* x, int64_t d) {
  float top = -INFINITY;
  for (int64_t c = threadIdx.x % kWarp; c < d; c += kWarp) top = x[c] > top || x[c] != x[c] ? x[c] : top;
  top = warpMax(top);
  float sum = 0;
  for (int64_t c = threadIdx.x % kWarp; c < d; c += kWarp) sum += expf(x[c] - top);
  return {top, warpSum(sum)};
}

/// y = scale * softmax(x).
DEVICE void softmaxOfRow(const float* x, float* y, int64_t d, const ExponentialSum& row, float scale = 1.0f) {
  const float inverse = 1.0f / row.sum;
  for (int64_t c = threadIdx.x % kWarp; c < d; c += kWarp) y[c] = expf(x[c] - row.max) * inverse * scale;
}

}  // namespace dp_moe
