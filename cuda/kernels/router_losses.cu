#include "choice_counts.h"
#include "reductions.h"
#include "router_losses.h"
#include "softmax_row.h"

namespace dp_moe {

KERNEL_BOUNDS(routerLoss, RouterLossKernelParams, kRouterLossThreads, 1) {
  constexpr int kWarps = kRouterLossThreads / kWarp;
  DYNAMIC_SHARED(int32_t, counts);
  SHARED(float, balanceOfWarp, kWarps);
  SHARED(float, zOfWarp, kWarps);
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const UnitRows unit = unitRows(p.offsets, blockIdx.x, p.rows, p.wrongOffsets);
  countChoices(p.expert, unit.first * p.k, unit.last * p.k, p.experts, counts, p.wrongExpert);
  // sum_e count_e sum_r p_re, and the sum of squared log-sum-exps.
  float balance = 0;
  float z = 0;
  for (int64_t r = unit.first + warp; r < unit.last; r += kWarps) {
    for (int64_t e = lane; p.balance != 0 && e < p.experts; e += kWarp) {
      balance = fmaf(static_cast<float>(counts[e]), p.probabilities[r * p.experts + e], balance);
    }
    if (p.z == 0) continue;
    const ExponentialSum row = exponentialSumOfRow(p.logits + r * p.experts, p.experts);
    const float logSumExp = row.max + logf(row.sum);
    z = fmaf(logSumExp, logSumExp, z);
  }
  balance = warpSum(balance);
  if (lane == 0) {
    balanceOfWarp[warp] = balance;
    zOfWarp[warp] = z;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int w = 1; w < kWarps; ++w) {
    balance += balanceOfWarp[w];
    z += zOfWarp[w];
  }
  const auto rows = static_cast<float>(unit.last - unit.first);
  const float scale = static_cast<float>(p.experts) / (static_cast<float>(p.k) * rows * rows);
  p.loss[blockIdx.x] = unit.first < unit.last ? p.balance * (balance * scale) + p.z * (z / rows) : 0.0f;
}

KERNEL_BOUNDS(routerLossBackward, RouterLossBackwardKernelParams, kRouterLossThreads, 1) {
  constexpr int kWarps = kRouterLossThreads / kWarp;
  DYNAMIC_SHARED(int32_t, counts);
  const int lane = threadIdx.x % kWarp;
  const UnitRows unit = unitRows(p.offsets, blockIdx.x, p.rows, p.wrongOffsets);
  countChoices(p.expert, unit.first * p.k, unit.last * p.k, p.experts, counts, p.wrongExpert);
  const auto rows = static_cast<float>(unit.last - unit.first);
  const float dLoss = p.dLoss[blockIdx.x];
  const float balance = dLoss * p.balance * static_cast<float>(p.experts) / (static_cast<float>(p.k) * rows * rows);
  for (int64_t r = unit.first + threadIdx.x / kWarp; r < unit.last; r += kWarps) {
    const float* logits = p.logits + r * p.experts;
    float* dLogits = p.dLogits + r * p.experts;
    for (int64_t e = lane; e < p.experts; e += kWarp) {
      p.dProbabilities[r * p.experts + e] = static_cast<float>(counts[e]) * balance;
      if (p.z == 0) dLogits[e] = 0;
    }
    if (p.z == 0) continue;
    const ExponentialSum row = exponentialSumOfRow(logits, p.experts);
    softmaxOfRow(logits, dLogits, p.experts, row, dLoss * p.z * 2.0f * (row.max + logf(row.sum)) / rows);
  }
}

KERNEL(routerLoadCounts, RouterLoadsKernelParams) {
  DYNAMIC_SHARED(int32_t, counts);
  const UnitRows rows = rowsOfUnits(p.offsets, 0, p.units, p.rows, p.wrongOffsets);
  const int64_t first = rows.first * p.k;
  const int64_t pairs = rows.last * p.k - first;
  countChoices(p.expert, first + pairs * blockIdx.x / kLoadBlocks, first + pairs * (blockIdx.x + 1) / kLoadBlocks,
               p.experts, counts, p.wrongExpert);
  for (int64_t e = threadIdx.x; e < p.experts; e += blockDim.x) p.partial[blockIdx.x * p.experts + e] = counts[e];
}

KERNEL(routerLoadSums, RouterLoadsKernelParams) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= p.experts) return;
  int64_t choices = 0;
  for (int64_t b = 0; b < kLoadBlocks; ++b) choices += p.partial[b * p.experts + e];
  p.loads[e] += static_cast<double>(choices);
}

KERNEL(unitLoads, UnitLoadsKernelParams) {
  DYNAMIC_SHARED(int32_t, counts);
  const UnitRows unit = unitRows(p.offsets, blockIdx.x, p.rows, p.wrongOffsets);
  const int64_t choices = (unit.last - unit.first) * p.k;
  countChoices(p.expert, unit.first * p.k, unit.last * p.k, p.experts, counts, p.wrongExpert);
  const auto divisor = static_cast<float>(max(choices, INT64_C(1)));
  for (int64_t e = threadIdx.x; e < p.experts; e += blockDim.x) {
    p.loads[blockIdx.x * p.experts + e] = static_cast<float>(counts[e]) / divisor;
  }
}

}  // namespace dp_moe
