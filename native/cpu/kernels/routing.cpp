#include "kernels/routing_kernels.h"
#include "kernels/softmax.h"

namespace dp_moe::DP_MOE_ISA {

namespace {

/// The lowest index of the largest value in candidates [experts], which is then marked as taken (-1).
/// A NaN counts as larger than every probability, so that any row yields k different experts.
DP_MOE_INLINE int32_t takeLargest(float* candidates, int64_t experts) {
  const float largest = maxOfRow(candidates, experts);
  vi index = broadcast(INT32_MAX);
  forVectors(experts, [&]<bool full>(int64_t c, int64_t n) {
    const vi at = lanes() + static_cast<int32_t>(c);
    vi found = read<full>(candidates + c, n) == largest;
    if (!full) found &= at < static_cast<int32_t>(experts);
    index = min(index, select(found, at, broadcast(INT32_MAX)));
  });
  int32_t lowest = index[0];
  for (int i = 1; i < W; ++i) lowest = index[i] < lowest ? index[i] : lowest;
  candidates[lowest] = -1;
  return lowest;
}

void topKRouting(const TopKRoutingParams& p, int64_t begin, int64_t end, float* scratch) {
  for (int64_t r = begin; r < end; ++r) {
    float* probabilities = p.probabilities.data + r * p.experts;
    int32_t* expert = p.expert.data + r * p.k;
    float* gate = p.gate.data + r * p.k;
    softmaxOfRow(p.logits.data + r * p.experts, probabilities, p.experts);
    forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
      const vf probability = read<full>(probabilities + c, n);
      write<full>(scratch + c, select(isNan(probability), broadcast(2.0f), probability), n);
    });
    float sum = 0;
    for (int64_t j = 0; j < p.k; ++j) {
      expert[j] = takeLargest(scratch, p.experts);
      gate[j] = probabilities[expert[j]];
      sum += gate[j];
    }
    if (p.normalize) {
      for (int64_t j = 0; j < p.k; ++j) gate[j] /= sum;
    }
  }
}

/// Normalisation: gate_j = p_j / s with s = sum_j p_j, so dp_j = (dGate_j - sum_i dGate_i gate_i) / s.
/// Softmax: dLogits = p (dp - sum_e dp_e p_e).
void topKRoutingBackward(const TopKRoutingBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* probabilities = p.probabilities.data + r * p.experts;
    const int32_t* expert = p.expert.data + r * p.k;
    float* dLogits = p.dLogits.data + r * p.experts;
    forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
      write<full>(dLogits + c,
                  p.dProbabilities.data != nullptr ? read<full>(p.dProbabilities.data + r * p.experts + c, n) : vf{},
                  n);
    });
    if (p.dGate.data != nullptr) {
      const float* dGate = p.dGate.data + r * p.k;
      float sum = 0;
      float product = 0;
      for (int64_t j = 0; j < p.k; ++j) {
        sum += probabilities[expert[j]];
        product += dGate[j] * p.gate.data[r * p.k + j];
      }
      for (int64_t j = 0; j < p.k; ++j) dLogits[expert[j]] += p.normalize ? (dGate[j] - product) / sum : dGate[j];
    }
    vf sum = {};
    forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
      sum = fma(read<full>(dLogits + c, n), read<full>(probabilities + c, n), sum);
    });
    const float product = reduceAdd(sum);
    forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
      write<full>(dLogits + c, read<full>(probabilities + c, n) * (read<full>(dLogits + c, n) - product), n);
    });
  }
}

/// counts [experts] = how often the unit's rows chose each expert.
template <class P>
DP_MOE_INLINE void countChoices(const P& p, int64_t first, int64_t last, float* counts) {
  for (int64_t e = 0; e < p.experts; ++e) counts[e] = 0;
  for (int64_t i = first * p.k; i < last * p.k; ++i) counts[p.expert.data[i]] += 1;
}

void routerLoss(const RouterLossParams& p, int64_t begin, int64_t end, float* counts) {
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = p.offsets.data[u];
    const int64_t last = p.offsets.data[u + 1];
    const auto rows = static_cast<float>(last - first);
    p.loss.data[u] = 0;
    if (first == last) continue;
    float balance = 0;
    if (p.balance != 0) {
      countChoices(p, first, last, counts);
      // sum_e count_e sum_r p_re: the unit's rows in order.
      for (int64_t r = first; r < last; ++r) {
        vf sum = {};
        forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
          sum = fma(read<full>(counts + c, n), read<full>(p.probabilities.data + r * p.experts + c, n), sum);
        });
        balance += reduceAdd(sum);
      }
      balance *= static_cast<float>(p.experts) / (static_cast<float>(p.k) * rows * rows);
    }
    float z = 0;
    if (p.z != 0) {
      for (int64_t r = first; r < last; ++r) {
        const LogSum log = logSumOfRow(p.logits.data + r * p.experts, p.experts);
        const float logSumExp = log.max + log.logOfSum;
        z += logSumExp * logSumExp;
      }
      z /= rows;
    }
    p.loss.data[u] = p.balance * balance + p.z * z;
  }
}

void routerLossBackward(const RouterLossBackwardParams& p, int64_t begin, int64_t end, float* counts) {
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = p.offsets.data[u];
    const int64_t last = p.offsets.data[u + 1];
    if (first == last) continue;
    const auto rows = static_cast<float>(last - first);
    const float dLoss = p.dLoss.data[u];
    countChoices(p, first, last, counts);
    const float balance = dLoss * p.balance * static_cast<float>(p.experts) / (static_cast<float>(p.k) * rows * rows);
    for (int64_t r = first; r < last; ++r) {
      const float* logits = p.logits.data + r * p.experts;
      float* dLogits = p.dLogits.data + r * p.experts;
      forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
        write<full>(p.dProbabilities.data + r * p.experts + c, read<full>(counts + c, n) * balance, n);
        write<full>(dLogits + c, vf{}, n);
      });
      if (p.z == 0) continue;
      const LogSum log = softmaxOfRow(logits, dLogits, p.experts);
      const float scale = dLoss * p.z * 2.0f * (log.max + log.logOfSum) / rows;
      forVectors(p.experts, [&]<bool full>(int64_t c, int64_t n) {
        write<full>(dLogits + c, read<full>(dLogits + c, n) * scale, n);
      });
    }
  }
}

}  // namespace

extern const RoutingKernels routingKernels;
const RoutingKernels routingKernels = {
    .topKRouting = topKRouting,
    .topKRoutingBackward = topKRoutingBackward,
    .routerLoss = routerLoss,
    .routerLossBackward = routerLossBackward,
};

}  // namespace dp_moe::DP_MOE_ISA
