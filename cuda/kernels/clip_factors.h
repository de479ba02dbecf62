#pragma once

#include "params.h"
#include "report.h"

namespace dp_moe {

constexpr int kClipThreads = 256;

/// clipFactors has a thread per unit, clipStatistics a block per group.
struct ClipFactorsKernelParams {
  ClipFactorsParams op;
  Report wrongBound;  // in group `value`
};

}  // namespace dp_moe
