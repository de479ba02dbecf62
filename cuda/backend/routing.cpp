#include "../kernels/routing.h"

#include <algorithm>
#include <string>

#include "../kernels/router_losses.h"
#include "checks.h"
#include "cuda_backend.h"
#include "row_grids.h"

namespace dp_moe {

namespace {

constexpr int64_t kSharedBytes = 48 << 10;

void checkRouting(int64_t experts, int64_t k, const char* op) {
  checkThat(experts > 0 && k > 0 && k <= experts, op,
            "1 <= k <= experts, got k " + std::to_string(k) + " and " + std::to_string(experts) + " experts");
}

/// Of the ops that count choices in shared memory; returns what that takes.
uint32_t checkCounting(int64_t experts, int64_t k, const char* op) {
  checkRouting(experts, k, op);
  checkThat(experts <= kMaxExperts, op,
            "at most " + std::to_string(kMaxExperts) + " experts on CUDA, got " + std::to_string(experts));
  return static_cast<uint32_t>(experts * static_cast<int64_t>(sizeof(int32_t)));
}

uint32_t blocksOfRows(int64_t rows) { return blocksFor(rows, kRoutingThreads / 32); }

/// Threads for the pairs of the mean unit, within the shared memory that their warps' counts take.
uint32_t rankWarps(const RoutingPlanParams& p) {
  const int64_t mean = p.rows * p.k / std::max<int64_t>(p.units, 1);
  const int64_t fitting = kSharedBytes / (p.experts * static_cast<int64_t>(sizeof(int32_t))) - 1;
  return static_cast<uint32_t>(std::min(fitting, std::clamp<int64_t>((mean + 31) / 32, 1, kRoutingThreads / 32)));
}

}  // namespace

void CudaBackend::topKRouting(const TopKRoutingParams& p) {
  checkRouting(p.experts, p.k, "topKRouting");
  checkSize(p.logits, p.rows * p.experts, "topKRouting", "logits");
  checkSize(p.probabilities, p.rows * p.experts, "topKRouting", "probabilities");
  checkSize(p.expert, p.rows * p.k, "topKRouting", "expert");
  checkSize(p.gate, p.rows * p.k, "topKRouting", "gate");
  launcher_.launch("topKRouting", {blocksOfRows(p.rows)}, kRoutingThreads,
                   TopKRoutingKernelParams{p.logits.data, p.probabilities.data, p.expert.data, p.gate.data, p.rows,
                                           p.experts, p.k, p.normalize});
}

void CudaBackend::topKRoutingBackward(const TopKRoutingBackwardParams& p) {
  checkRouting(p.experts, p.k, "topKRoutingBackward");
  checkOptionalSize(p.dGate, p.rows * p.k, "topKRoutingBackward", "dGate");
  checkOptionalSize(p.dProbabilities, p.rows * p.experts, "topKRoutingBackward", "dProbabilities");
  checkSize(p.probabilities, p.rows * p.experts, "topKRoutingBackward", "probabilities");
  checkSize(p.expert, p.rows * p.k, "topKRoutingBackward", "expert");
  checkSize(p.gate, p.rows * p.k, "topKRoutingBackward", "gate");
  checkSize(p.dLogits, p.rows * p.experts, "topKRoutingBackward", "dLogits");
  launcher_.launch(
      "topKRoutingBackward", {blocksOfRows(p.rows)}, kRoutingThreads,
      TopKRoutingBackwardKernelParams{
          p.dGate.data, p.dProbabilities.data, p.probabilities.data, p.expert.data, p.gate.data, p.dLogits.data,
          indexReport(launcher_, "topKRoutingBackward", "expert", 0, p.experts), p.rows, p.experts, p.k, p.normalize});
}

void CudaBackend::routingPlan(const RoutingPlanParams& p) {
  const uint32_t countBytes = checkCounting(p.experts, p.k, "routingPlan");
  checkSize(p.expert, p.rows * p.k, "routingPlan", "expert");
  checkSize(p.offsets, p.units + 1, "routingPlan", "offsets");
  checkSize(p.segmentOffsets, p.experts * p.units + 1, "routingPlan", "segmentOffsets");
  checkSize(p.rowOfSlot, p.rows * p.k, "routingPlan", "rowOfSlot");
  checkSize(p.slotOf, p.rows * p.k, "routingPlan", "slotOf");
  checkThat(p.rows * p.k <= INT32_MAX, "routingPlan", "at most 2^31 - 1 rows times choices");
  checkThat(p.capacity >= 0, "routingPlan", "a capacity of at least 0, got " + std::to_string(p.capacity));

  const int64_t segments = p.experts * p.units;
  const auto capacity = static_cast<int32_t>(p.capacity > 0 ? std::min<int64_t>(p.capacity, INT32_MAX) : INT32_MAX);
  const uint32_t blocks = static_cast<uint32_t>(std::max<int64_t>(p.units, 1));
  const uint32_t tiles = blocksFor(segments, kScanTile);
  const uint32_t warps = rankWarps(p);
  const RoutingPlanKernelParams plan = {p.expert.data,
                                        p.offsets.data,
                                        p.segmentOffsets.data,
                                        p.rowOfSlot.data,
                                        p.slotOf.data,
                                        offsetsReport(launcher_, "routingPlan", "offsets", p.rows),
                                        indexReport(launcher_, "routingPlan", "expert", 0, p.experts),
                                        p.rows,
                                        p.units,
                                        p.experts,
                                        p.k,
                                        capacity};
  const RoutingPlanScanKernelParams scan = {p.segmentOffsets.data + 1, launcher_.scratch<int32_t>(0, tiles), segments};
  launcher_.launch("routingPlanCount", {blocks}, warps * 32, plan, countBytes);
  launcher_.launch("routingPlanScan", {tiles}, kRoutingThreads, scan);
  launcher_.launch("routingPlanAddTiles", {tiles > 0 ? tiles - 1 : 0}, kRoutingThreads, scan);
  launcher_.launch("routingPlanRank", {blocks}, warps * 32, plan, (1 + warps) * countBytes);
}

void CudaBackend::scatterToSlots(const ScatterToSlotsParams& p) {
  checkSize(p.values, p.count, "scatterToSlots", "values");
  checkSize(p.slotOf, p.count, "scatterToSlots", "slotOf");
  launcher_.launch(
      "scatterToSlots", {blocksFor(p.count, kRoutingThreads)}, kRoutingThreads,
      ScatterToSlotsKernelParams{p.values.data, p.slotOf.data, p.slots.data,
                                 indexReport(launcher_, "scatterToSlots", "slotOf", INT32_MIN, p.slots.size),
                                 p.slots.size, p.count});
}

void CudaBackend::unitLoads(const UnitLoadsParams& p) {
  const uint32_t countBytes = checkCounting(p.experts, p.k, "unitLoads");
  checkSize(p.expert, p.rows * p.k, "unitLoads", "expert");
  checkSize(p.offsets, p.units + 1, "unitLoads", "offsets");
  checkSize(p.loads, p.units * p.experts, "unitLoads", "loads");
  launcher_.launch(
      "unitLoads", {static_cast<uint32_t>(p.units)}, kRoutingThreads,
      UnitLoadsKernelParams{p.expert.data, p.offsets.data, p.loads.data,
                            offsetsReport(launcher_, "unitLoads", "offsets", p.rows),
                            indexReport(launcher_, "unitLoads", "expert", 0, p.experts), p.rows, p.experts, p.k},
      countBytes);
}

void CudaBackend::routerLoss(const RouterLossParams& p) {
  const uint32_t countBytes = checkCounting(p.experts, p.k, "routerLoss");
  checkSize(p.logits, p.rows * p.experts, "routerLoss", "logits");
  checkSize(p.probabilities, p.rows * p.experts, "routerLoss", "probabilities");
  checkSize(p.expert, p.rows * p.k, "routerLoss", "expert");
  checkSize(p.offsets, p.units + 1, "routerLoss", "offsets");
  checkSize(p.loss, p.units, "routerLoss", "loss");
  checkOptionalSize(p.loads, p.experts, "routerLoss", "loads");
  const Report wrongOffsets = offsetsReport(launcher_, "routerLoss", "offsets", p.rows);
  const Report wrongExpert = indexReport(launcher_, "routerLoss", "expert", 0, p.experts);
  launcher_.launch(
      "routerLoss", {static_cast<uint32_t>(p.units)}, kRouterLossThreads,
      RouterLossKernelParams{p.logits.data, p.probabilities.data, p.expert.data, p.offsets.data, p.loss.data,
                             wrongOffsets, wrongExpert, p.rows, p.experts, p.k, p.balance, p.z},
      countBytes);
  if (p.loads.data == nullptr || p.units == 0) return;
  const RouterLoadsKernelParams loads = {p.expert.data,
                                         p.offsets.data,
                                         launcher_.scratch<int32_t>(0, kLoadBlocks * p.experts),
                                         p.loads.data,
                                         wrongOffsets,
                                         wrongExpert,
                                         p.rows,
                                         p.units,
                                         p.experts,
                                         p.k};
  launcher_.launch("routerLoadCounts", {kLoadBlocks}, kRoutingThreads, loads, countBytes);
  launcher_.launch("routerLoadSums", {blocksFor(p.experts, 32)}, 32, loads);
}

void CudaBackend::routerLossBackward(const RouterLossBackwardParams& p) {
  const uint32_t countBytes = checkCounting(p.experts, p.k, "routerLossBackward");
  checkSize(p.dLoss, p.units, "routerLossBackward", "dLoss");
  checkSize(p.logits, p.rows * p.experts, "routerLossBackward", "logits");
  checkSize(p.expert, p.rows * p.k, "routerLossBackward", "expert");
  checkSize(p.offsets, p.units + 1, "routerLossBackward", "offsets");
  checkSize(p.dProbabilities, p.rows * p.experts, "routerLossBackward", "dProbabilities");
  checkSize(p.dLogits, p.rows * p.experts, "routerLossBackward", "dLogits");
  launcher_.launch(
      "routerLossBackward", {static_cast<uint32_t>(p.units)}, kRouterLossThreads,
      RouterLossBackwardKernelParams{p.dLoss.data, p.logits.data, p.expert.data, p.offsets.data, p.dProbabilities.data,
                                     p.dLogits.data, offsetsReport(launcher_, "routerLossBackward", "offsets", p.rows),
                                     indexReport(launcher_, "routerLossBackward", "expert", 0, p.experts), p.rows,
                                     p.experts, p.k, p.balance, p.z},
      countBytes);
}

}  // namespace dp_moe
