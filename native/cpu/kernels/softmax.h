#pragma once

#include "kernels/lanes.h"
#include "kernels/math.h"

namespace dp_moe::DP_MOE_ISA {

/// log sum_i exp(x_i) = max + log(sum), with sum = sum_i exp(x_i - max) in [1, n].
struct LogSum {
  float max;
  float sum;
  float logOfSum;
};

DP_MOE_INLINE float maxOfRow(const float* x, int64_t d) {
  vf top = broadcast(-kInfinity);
  forVectors(d, [&]<bool full>(int64_t c, int64_t n) {
    vf value = read<full>(x + c, n);
    if (!full) value = select(lanes() < static_cast<int32_t>(n), value, broadcast(-kInfinity));
    // A NaN may be lost here; it comes back in the sum.
    top = max(value, top);
  });
  return reduceMax(top);
}

/// Sums in blocks of 512 elements counted from the row's start, so that a large vocabulary keeps its digits.
DP_MOE_INLINE LogSum logSumOfRow(const float* x, int64_t d) {
  constexpr int64_t kBlock = 512;
  const float top = maxOfRow(x, d);
  float total = 0;
  for (int64_t block = 0; block < d; block += kBlock) {
    vf sum = {};
    forVectors(smaller(kBlock, d - block), [&]<bool full>(int64_t c, int64_t n) {
      const vf e = exp(read<full>(x + block + c, n) - top);
      sum += full ? e : select(lanes() < static_cast<int32_t>(n), e, vf{});
    });
    total += reduceAdd(sum);
  }
  // A sum that is NaN stays NaN: logPositive knows positive floats only.
  return {top, total, logPositive(broadcast(total))[0] + (total - total)};
}

/// y = softmax(x); y may be x. Returns what the sum was.
DP_MOE_INLINE LogSum softmaxOfRow(const float* x, float* y, int64_t d) {
  const LogSum log = logSumOfRow(x, d);
  const float inverse = 1.0f / log.sum;
  forVectors(d, [&]<bool full>(int64_t c, int64_t n) {
    write<full>(y + c, exp(read<full>(x + c, n) - log.max) * inverse, n);
  });
  return log;
}

}  // namespace dp_moe::DP_MOE_ISA
