#pragma once

#include "params.h"

namespace dp_moe {

/// [begin, end) are rows, for the router's loss units. `scratch` holds at least `experts` floats per call.
struct RoutingKernels {
  void (*topKRouting)(const TopKRoutingParams&, int64_t begin, int64_t end, float* scratch);
  void (*topKRoutingBackward)(const TopKRoutingBackwardParams&, int64_t begin, int64_t end);
  void (*routerLoss)(const RouterLossParams&, int64_t begin, int64_t end, float* scratch);
  void (*routerLossBackward)(const RouterLossBackwardParams&, int64_t begin, int64_t end, float* scratch);
};

}  // namespace dp_moe
