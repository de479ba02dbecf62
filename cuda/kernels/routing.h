#pragma once

#include <cstdint>

#include "report.h"

namespace dp_moe {

constexpr int kRoutingThreads = 256;
/// Bounded by the shared memory of the routing plan.
constexpr int64_t kMaxExperts = 4096;

/// TopKRoutingParams. A warp makes one row: lane l has experts l, l + 32, ...
struct TopKRoutingKernelParams {
  const float* logits;
  float* probabilities;
  int32_t* expert;
  float* gate;
  int64_t rows;
  int64_t experts;
  int64_t k;
  bool normalize;
};

/// TopKRoutingBackwardParams, threads as in TopKRoutingKernelParams.
struct TopKRoutingBackwardKernelParams {
  const float* dGate;
  const float* dProbabilities;
  const float* probabilities;
  const int32_t* expert;
  const float* gate;
  float* dLogits;
  Report wrongExpert;
  int64_t rows;
  int64_t experts;
  int64_t k;
  bool normalize;
};

/// ScatterToSlotsParams; a thread per value.
struct ScatterToSlotsKernelParams {
  const float* values;
  const int32_t* slotOf;
  float* slots;
  Report wrongSlot;
  int64_t count;
  int64_t slotCount;
};

// The routing plan is a counting sort in four launches:
//   routingPlanCount     per unit: its choices of each expert, at most `capacity`, at segmentOffsets[e * units + u + 1]
//   routingPlanScan      running sums within tiles of that table; each tile's sum goes to tileSums
//   routingPlanAddTiles  adds the sums of the tiles before
//   routingPlanRank      per unit: the place of each pair among those before it that chose its expert
// All are sums of integers, so that no order of threads can change them.

constexpr int kScanItems = 8;  // per thread
constexpr int kScanTile = kRoutingThreads * kScanItems;

/// RoutingPlanParams; a block per unit, which has at least one so that what follows the last pair is cleared.
struct RoutingPlanKernelParams {
  const int32_t* expert;
  const int32_t* offsets;
  int32_t* segmentOffsets;
  int32_t* rowOfSlot;
  int32_t* slotOf;
  Report wrongOffsets;
  Report wrongExpert;
  int64_t rows;
  int64_t units;
  int64_t experts;
  int64_t k;
  int32_t capacity;
};

struct RoutingPlanScanKernelParams {
  int32_t* counts;  // segmentOffsets + 1
  int32_t* tileSums;
  int64_t size;
};

}  // namespace dp_moe
