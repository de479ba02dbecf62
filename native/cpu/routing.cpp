#include <string>

#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

namespace {

constexpr int64_t kUnitsPerTask = 16;

void checkRouting(int64_t experts, int64_t k, const char* op) {
  checkThat(experts > 0 && k > 0 && k <= experts, op,
            "1 <= k <= experts, got k " + std::to_string(k) + " and " + std::to_string(experts) + " experts");
}

int64_t taskRows(int64_t experts) { return rowsPerTask(8 * experts); }

}  // namespace

void CpuBackend::topKRouting(const TopKRoutingParams& p) {
  checkRouting(p.experts, p.k, "topKRouting");
  checkSize(p.logits, p.rows * p.experts, "topKRouting", "logits");
  checkSize(p.probabilities, p.rows * p.experts, "topKRouting", "probabilities");
  checkSize(p.expert, p.rows * p.k, "topKRouting", "expert");
  checkSize(p.gate, p.rows * p.k, "topKRouting", "gate");
  const int64_t perTask = taskRows(p.experts);
  threads_.parallelFor((p.rows + perTask - 1) / perTask, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(p.experts);
    kernels_.routing.topKRouting(p, task * perTask, std::min((task + 1) * perTask, p.rows), scratch);
  });
}

void CpuBackend::topKRoutingBackward(const TopKRoutingBackwardParams& p) {
  checkRouting(p.experts, p.k, "topKRoutingBackward");
  checkOptionalSize(p.dGate, p.rows * p.k, "topKRoutingBackward", "dGate");
  checkOptionalSize(p.dProbabilities, p.rows * p.experts, "topKRoutingBackward", "dProbabilities");
  checkSize(p.probabilities, p.rows * p.experts, "topKRoutingBackward", "probabilities");
  checkSize(p.expert, p.rows * p.k, "topKRoutingBackward", "expert");
  checkSize(p.gate, p.rows * p.k, "topKRoutingBackward", "gate");
  checkSize(p.dLogits, p.rows * p.experts, "topKRoutingBackward", "dLogits");
  checkIndices(p.expert, p.rows * p.k, 0, p.experts, "topKRoutingBackward", "expert");
  parallelRanges(threads_, p.rows, taskRows(p.experts),
                 [&](int64_t begin, int64_t end) { kernels_.routing.topKRoutingBackward(p, begin, end); });
}

void CpuBackend::routingPlan(const RoutingPlanParams& p) {
  checkRouting(p.experts, p.k, "routingPlan");
  checkSize(p.expert, p.rows * p.k, "routingPlan", "expert");
  checkOffsets(p.offsets, p.units, p.rows, "routingPlan", "offsets");
  checkSize(p.segmentOffsets, p.experts * p.units + 1, "routingPlan", "segmentOffsets");
  checkSize(p.rowOfSlot, p.rows * p.k, "routingPlan", "rowOfSlot");
  checkSize(p.slotOf, p.rows * p.k, "routingPlan", "slotOf");
  checkThat(p.rows * p.k <= INT32_MAX, "routingPlan", "at most 2^31 - 1 rows times choices");
  checkThat(p.capacity >= 0, "routingPlan", "a capacity of at least 0, got " + std::to_string(p.capacity));
  checkIndices(p.expert, p.rows * p.k, 0, p.experts, "routingPlan", "expert");

  // Counts per (expert, unit) at the segment's end, then their running sum. A unit's entries belong to one task.
  int32_t* segments = p.segmentOffsets.data;
  const auto capacity = static_cast<int32_t>(p.capacity > 0 ? std::min<int64_t>(p.capacity, INT32_MAX) : INT32_MAX);
  segments[0] = 0;
  parallelRanges(threads_, p.units, kUnitsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      for (int64_t e = 0; e < p.experts; ++e) segments[e * p.units + u + 1] = 0;
      for (int64_t i = p.offsets.data[u] * p.k; i < p.offsets.data[u + 1] * p.k; ++i) {
        int32_t& count = segments[p.expert.data[i] * p.units + u + 1];
        if (count < capacity) ++count;
      }
    }
  });
  for (int64_t s = 0; s < p.experts * p.units; ++s) segments[s + 1] += segments[s];

  for (int64_t i = segments[p.experts * p.units]; i < p.rows * p.k; ++i) p.rowOfSlot.data[i] = -1;
  for (int64_t i = p.units > 0 ? p.offsets.data[p.units] * p.k : 0; i < p.rows * p.k; ++i) p.slotOf.data[i] = -1;
  threads_.parallelFor((p.units + kUnitsPerTask - 1) / kUnitsPerTask, [&](int64_t task, int thread) {
    int32_t* next = threadScratch_[static_cast<size_t>(thread)].take<int32_t>(p.experts);
    for (int64_t u = task * kUnitsPerTask; u < std::min((task + 1) * kUnitsPerTask, p.units); ++u) {
      for (int64_t e = 0; e < p.experts; ++e) next[e] = segments[e * p.units + u];
      for (int64_t i = p.offsets.data[u] * p.k; i < p.offsets.data[u + 1] * p.k; ++i) {
        const int32_t e = p.expert.data[i];
        const bool kept = next[e] < segments[e * p.units + u + 1];
        p.slotOf.data[i] = kept ? next[e] : -1;
        if (kept) p.rowOfSlot.data[next[e]++] = static_cast<int32_t>(i / p.k);
      }
    }
  });
}

void CpuBackend::scatterToSlots(const ScatterToSlotsParams& p) {
  checkSize(p.values, p.count, "scatterToSlots", "values");
  checkSize(p.slotOf, p.count, "scatterToSlots", "slotOf");
  checkIndices(p.slotOf, p.count, INT32_MIN, p.slots.size, "scatterToSlots", "slotOf");
  for (int64_t i = 0; i < p.count; ++i) {
    if (p.slotOf.data[i] >= 0) p.slots.data[p.slotOf.data[i]] = p.values.data[i];
  }
}

void CpuBackend::unitLoads(const UnitLoadsParams& p) {
  checkRouting(p.experts, p.k, "unitLoads");
  checkSize(p.expert, p.rows * p.k, "unitLoads", "expert");
  checkOffsets(p.offsets, p.units, p.rows, "unitLoads", "offsets");
  checkSize(p.loads, p.units * p.experts, "unitLoads", "loads");
  checkIndices(p.expert, p.rows * p.k, 0, p.experts, "unitLoads", "expert");
  threads_.parallelFor((p.units + kUnitsPerTask - 1) / kUnitsPerTask, [&](int64_t task, int thread) {
    int32_t* counts = threadScratch_[static_cast<size_t>(thread)].take<int32_t>(p.experts);
    for (int64_t u = task * kUnitsPerTask; u < std::min((task + 1) * kUnitsPerTask, p.units); ++u) {
      std::fill(counts, counts + p.experts, 0);
      const int64_t begin = p.offsets.data[u] * p.k;
      const int64_t end = p.offsets.data[u + 1] * p.k;
      for (int64_t i = begin; i < end; ++i) ++counts[p.expert.data[i]];
      const auto choices = static_cast<float>(std::max<int64_t>(end - begin, 1));
      for (int64_t e = 0; e < p.experts; ++e) {
        p.loads.data[u * p.experts + e] = static_cast<float>(counts[e]) / choices;
      }
    }
  });
}

void CpuBackend::routerLoss(const RouterLossParams& p) {
  checkRouting(p.experts, p.k, "routerLoss");
  checkSize(p.logits, p.rows * p.experts, "routerLoss", "logits");
  checkSize(p.probabilities, p.rows * p.experts, "routerLoss", "probabilities");
  checkSize(p.expert, p.rows * p.k, "routerLoss", "expert");
  checkOffsets(p.offsets, p.units, p.rows, "routerLoss", "offsets");
  checkSize(p.loss, p.units, "routerLoss", "loss");
  checkOptionalSize(p.loads, p.experts, "routerLoss", "loads");
  checkIndices(p.expert, p.rows * p.k, 0, p.experts, "routerLoss", "expert");
  threads_.parallelFor((p.units + kUnitsPerTask - 1) / kUnitsPerTask, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(p.experts);
    kernels_.routing.routerLoss(p, task * kUnitsPerTask, std::min((task + 1) * kUnitsPerTask, p.units), scratch);
  });
  if (p.loads.data == nullptr || p.units == 0) return;
  for (int64_t i = p.offsets.data[0] * p.k; i < p.offsets.data[p.units] * p.k; ++i) {
    p.loads.data[p.expert.data[i]] += 1;
  }
}

void CpuBackend::routerLossBackward(const RouterLossBackwardParams& p) {
  checkRouting(p.experts, p.k, "routerLossBackward");
  checkSize(p.dLoss, p.units, "routerLossBackward", "dLoss");
  checkSize(p.logits, p.rows * p.experts, "routerLossBackward", "logits");
  checkSize(p.expert, p.rows * p.k, "routerLossBackward", "expert");
  checkOffsets(p.offsets, p.units, p.rows, "routerLossBackward", "offsets");
  checkSize(p.dProbabilities, p.rows * p.experts, "routerLossBackward", "dProbabilities");
  checkSize(p.dLogits, p.rows * p.experts, "routerLossBackward", "dLogits");
  checkIndices(p.expert, p.rows * p.k, 0, p.experts, "routerLossBackward", "expert");
  threads_.parallelFor((p.units + kUnitsPerTask - 1) / kUnitsPerTask, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(p.experts);
    kernels_.routing.routerLossBackward(p, task * kUnitsPerTask, std::min((task + 1) * kUnitsPerTask, p.units),
                                        scratch);
  });
}

}  // namespace dp_moe
