#include "losses.h"
#include "row_team.h"
#include "unit_rows.h"

// Softmax and cross-entropy over rows of any length. The sum of exponentials is made in one pass, with a running
// maximum; no probabilities are stored.

namespace dp_moe {

namespace {

/// sum = sum_i exp(x_i - top), in [1, n]. A NaN is lost in top and comes back in the sum.
struct LogSum {
  float top;
  float sum;
};

/// What to subtract from elements at most `top`: exp(-infinity - 0) is 0.
DEVICE float baseOf(float top) { return top == -INFINITY ? 0.0f : top; }

/// The same for both orders.
DEVICE LogSum join(const LogSum& a, const LogSum& b) {
  const float top = fmaxf(a.top, b.top);
  const float base = baseOf(top);
  return {top, a.sum * expf(a.top - base) + b.sum * expf(b.top - base)};
}

DEVICE LogSum joinTeam(WarpTeam, LogSum sum, LogSum*) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const LogSum other = {__shfl_xor_sync(kFullMask, sum.top, distance), __shfl_xor_sync(kFullMask, sum.sum, distance)};
    sum = join(sum, other);
  }
  return sum;
}
DEVICE LogSum joinTeam(BlockTeam, LogSum sum, LogSum* parts) {
  sum = joinTeam(WarpTeam(), sum, nullptr);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = parts[0];
  for (int warp = 1; warp < kMaxWarps; ++warp) sum = join(sum, parts[warp]);
  return sum;
}

template <class Team, class T, int n>
DEVICE LogSum logSumOfRow(const T* x, int64_t d, bool aligned, LogSum* parts) {
  LogSum sum = {-INFINITY, 0};
  forPacks<Team, n>(d, [&](int64_t c) {
    const Pack<float, n> values = loadElements<T, n>(x + c, aligned);
    float top = sum.top;
    for (int i = 0; i < n; ++i) top = fmaxf(top, values.value[i]);
    const float base = baseOf(top);
    float part = 0;
    for (int i = 0; i < n; ++i) part += expf(values.value[i] - base);
    sum = {top, fmaf(sum.sum, expf(sum.top - base), part)};
  });
  return joinTeam(Team(), sum, parts);
}

/// Whether the row has a target; one outside of the classes counts as none and is reported.
template <class Params>
DEVICE bool hasTarget(const Params& p, int32_t target) {
  if (target >= 0 && target < p.classes) return true;
  if (target != -1) report(p.wrongTarget, target);
  return false;
}

template <class Team, class T, int n>
DEVICE void crossEntropyRow(const CrossEntropyKernelParams& p, LogSum* parts) {
  const int64_t row = Team::row();
  if (row >= p.rows) return;
  const int32_t target = p.targets[row];
  if (!hasTarget(p, target)) {
    if (Team::rank() == 0) p.loss[row] = p.logSumExp[row] = 0;
    return;
  }
  const T* x = static_cast<const T*>(p.logits) + row * p.classes;
  const LogSum sum = logSumOfRow<Team, T, n>(x, p.classes, p.order.aligned, parts);
  if (Team::rank() > 0) return;
  const float log = logf(sum.sum);
  p.logSumExp[row] = sum.top + log;
  // The difference first: exact where the target is near the maximum, however large both are.
  p.loss[row] = (sum.top - toFloat(x[target])) + log;
}

template <class Team, class T, int n>
DEVICE void crossEntropyBackwardRow(const CrossEntropyBackwardKernelParams& p) {
  const int64_t row = Team::row();
  if (row >= p.rows) return;
  const int32_t target = p.targets[row];
  const T* x = static_cast<const T*>(p.logits) + row * p.classes;
  T* dx = static_cast<T*>(p.dLogits) + row * p.classes;
  if (!hasTarget(p, target)) {
    forPacks<Team, n>(p.classes, [&](int64_t c) { storeElements<T, n>(dx + c, Pack<float, n>{}, p.order.aligned); });
    return;
  }
  const float scale = p.dLoss[row];
  const float logSumExp = p.logSumExp[row];
  forPacks<Team, n>(p.classes, [&](int64_t c) {
    Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    for (int i = 0; i < n; ++i) {
      const float probability = expf(values.value[i] - logSumExp);
      values.value[i] = (c + i == target ? probability - 1.0f : probability) * scale;
    }
    storeElements<T, n>(dx + c, values, p.order.aligned);
  });
}

template <class Team, class T, int n>
DEVICE void softmaxRow(const SoftmaxKernelParams& p, LogSum* parts) {
  const int64_t row = Team::row();
  if (row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x) + row * p.d;
  T* y = static_cast<T*>(p.y) + row * p.d;
  const LogSum sum = logSumOfRow<Team, T, n>(x, p.d, p.order.aligned, parts);
  const float inverse = 1.0f / sum.sum;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    for (int i = 0; i < n; ++i) values.value[i] = expf(values.value[i] - sum.top) * inverse;
    storeElements<T, n>(y + c, values, p.order.aligned);
  });
}

}  // namespace

template <class Team, class T>
DEVICE void crossEntropyBody(const CrossEntropyKernelParams& p, LogSum* parts) {
  p.order.packed ? crossEntropyRow<Team, T, kPack<T>>(p, parts) : crossEntropyRow<Team, T, 1>(p, parts);
}
KERNEL(crossEntropy_float32, CrossEntropyKernelParams) { crossEntropyBody<WarpTeam, float>(p, nullptr); }
KERNEL(crossEntropy_bfloat16, CrossEntropyKernelParams) { crossEntropyBody<WarpTeam, bfloat16>(p, nullptr); }
KERNEL_BOUNDS(crossEntropyWide_float32, CrossEntropyKernelParams, kBlockThreads, 2) {
  SHARED(LogSum, parts, kMaxWarps);
  crossEntropyBody<BlockTeam, float>(p, parts);
}
KERNEL_BOUNDS(crossEntropyWide_bfloat16, CrossEntropyKernelParams, kBlockThreads, 2) {
  SHARED(LogSum, parts, kMaxWarps);
  crossEntropyBody<BlockTeam, bfloat16>(p, parts);
}

template <class Team, class T>
DEVICE void crossEntropyBackwardBody(const CrossEntropyBackwardKernelParams& p) {
  p.order.packed ? crossEntropyBackwardRow<Team, T, kPack<T>>(p) : crossEntropyBackwardRow<Team, T, 1>(p);
}
KERNEL(crossEntropyBackward_float32, CrossEntropyBackwardKernelParams) { crossEntropyBackwardBody<WarpTeam, float>(p); }
KERNEL(crossEntropyBackward_bfloat16, CrossEntropyBackwardKernelParams) {
  crossEntropyBackwardBody<WarpTeam, bfloat16>(p);
}
KERNEL_BOUNDS(crossEntropyBackwardWide_float32, CrossEntropyBackwardKernelParams, kBlockThreads, 2) {
  crossEntropyBackwardBody<BlockTeam, float>(p);
}
KERNEL_BOUNDS(crossEntropyBackwardWide_bfloat16, CrossEntropyBackwardKernelParams, kBlockThreads, 2) {
  crossEntropyBackwardBody<BlockTeam, bfloat16>(p);
}

template <class Team, class T>
DEVICE void softmaxBody(const SoftmaxKernelParams& p, LogSum* parts) {
  p.order.packed ? softmaxRow<Team, T, kPack<T>>(p, parts) : softmaxRow<Team, T, 1>(p, parts);
}
KERNEL(softmax_float32, SoftmaxKernelParams) { softmaxBody<WarpTeam, float>(p, nullptr); }
KERNEL(softmax_bfloat16, SoftmaxKernelParams) { softmaxBody<WarpTeam, bfloat16>(p, nullptr); }
KERNEL_BOUNDS(softmaxWide_float32, SoftmaxKernelParams, kBlockThreads, 2) {
  SHARED(LogSum, parts, kMaxWarps);
  softmaxBody<BlockTeam, float>(p, parts);
}
KERNEL_BOUNDS(softmaxWide_bfloat16, SoftmaxKernelParams, kBlockThreads, 2) {
  SHARED(LogSum, parts, kMaxWarps);
  softmaxBody<BlockTeam, bfloat16>(p, parts);
}

}  // namespace dp_moe
