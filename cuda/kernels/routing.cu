#include "reductions.h"
#include "routing.h"
#include "softmax_row.h"
#include "unit_rows.h"

namespace dp_moe {

namespace {

/// The row of this thread's warp.
DEVICE int64_t rowOfWarp() { return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp; }

struct Candidate {
  float value;
  int32_t index;
};

DEVICE bool isBefore(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.index < b.index);
}

/// The first of all candidates of the row that come after `previous`, the same for every lane. A NaN counts as larger
/// than every probability, so that any row yields k different experts. A lane reads only what it wrote itself.
DEVICE Candidate nextLargest(const float* probabilities, int64_t experts, const Candidate& previous) {
  Candidate best = {-1.0f, INT32_MAX};
  for (int64_t e = threadIdx.x % kWarp; e < experts; e += kWarp) {
    const float p = probabilities[e];
    const Candidate candidate = {p == p ? p : 2.0f, static_cast<int32_t>(e)};
    if (isBefore(previous, candidate) && isBefore(candidate, best)) best = candidate;
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Candidate other = {__shfl_xor_sync(kFullMask, best.value, distance),
                             __shfl_xor_sync(kFullMask, best.index, distance)};
    if (isBefore(other, best)) best = other;
  }
  return best;
}

}  // namespace

KERNEL(topKRouting, TopKRoutingKernelParams) {
  const int64_t row = rowOfWarp();
  const int lane = threadIdx.x % kWarp;
  if (row >= p.rows) return;
  float* probabilities = p.probabilities + row * p.experts;
  const float* logits = p.logits + row * p.experts;
  softmaxOfRow(logits, probabilities, p.experts, exponentialSumOfRow(logits, p.experts));
  float sum = 0;
  Candidate chosen = {3.0f, -1};
  for (int64_t j = 0; j < p.k; ++j) {
    chosen = nextLargest(probabilities, p.experts, chosen);
    const float gate = chosen.value <= 1.0f ? chosen.value : __uint_as_float(0x7fc00000);
    sum += gate;
    if (lane == j % kWarp) {
      p.expert[row * p.k + j] = chosen.index;
      p.gate[row * p.k + j] = gate;
    }
  }
  if (!p.normalize) return;
  for (int64_t j = lane; j < p.k; j += kWarp) p.gate[row * p.k + j] /= sum;
}

/// Normalisation: gate_j = p_j / s with s = sum_j p_j, so dp_j = (dGate_j - sum_i dGate_i gate_i) / s.
/// Softmax: dLogits = p (dp - sum_e dp_e p_e).
KERNEL(topKRoutingBackward, TopKRoutingBackwardKernelParams) {
  const int64_t row = rowOfWarp();
  if (row >= p.rows) return;
  const float* probabilities = p.probabilities + row * p.experts;
  const int32_t* expert = p.expert + row * p.k;
  float chosen = 0;
  float product = 0;
  for (int64_t j = 0; j < p.k; ++j) {
    if (expert[j] < 0 || expert[j] >= p.experts) {
      report(p.wrongExpert, expert[j]);
      return;
    }
    chosen += probabilities[expert[j]];
    if (p.dGate != nullptr) product += p.dGate[row * p.k + j] * p.gate[row * p.k + j];
  }
  const auto dProbability = [&](int64_t e) {
    float d = p.dProbabilities != nullptr ? p.dProbabilities[row * p.experts + e] : 0.0f;
    if (p.dGate == nullptr) return d;
    for (int64_t j = 0; j < p.k; ++j) {
      const float dGate = p.dGate[row * p.k + j];
      if (expert[j] == e) d += p.normalize ? (dGate - product) / chosen : dGate;
    }
    return d;
  };
  float sum = 0;
  for (int64_t e = threadIdx.x % kWarp; e < p.experts; e += kWarp) sum = fmaf(dProbability(e), probabilities[e], sum);
  sum = warpSum(sum);
  for (int64_t e = threadIdx.x % kWarp; e < p.experts; e += kWarp) {
    p.dLogits[row * p.experts + e] = probabilities[e] * (dProbability(e) - sum);
  }
}

KERNEL(scatterToSlots, ScatterToSlotsKernelParams) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.count) return;
  const int32_t slot = p.slotOf[i];
  if (slot >= p.slotCount) {
    report(p.wrongSlot, slot);
  } else if (slot >= 0) {
    p.slots[slot] = p.values[i];
  }
}

}  // namespace dp_moe
