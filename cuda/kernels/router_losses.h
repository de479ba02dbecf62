#pragma once

#include <cstdint>

#include "report.h"

namespace dp_moe {

constexpr int kRouterLossThreads = 256;

/// RouterLossParams without loads; a block per unit. Warp w adds the unit's rows w, w + 8, ... in order, then the
/// warps' sums are added in order. kMaxExperts applies to every kernel here.
struct RouterLossKernelParams {
  const float* logits;
  const float* probabilities;
  const int32_t* expert;
  const int32_t* offsets;
  float* loss;
  Report wrongOffsets;
  Report wrongExpert;
  int64_t rows;
  int64_t experts;
  int64_t k;
  float balance;
  float z;
};

/// RouterLossBackwardParams; a block per unit, a warp per row.
struct RouterLossBackwardKernelParams {
  const float* dLoss;
  const float* logits;
  const int32_t* expert;
  const int32_t* offsets;
  float* dProbabilities;
  float* dLogits;
  Report wrongOffsets;
  Report wrongExpert;
  int64_t rows;
  int64_t experts;
  int64_t k;
  float balance;
  float z;
};

constexpr int kLoadBlocks = 128;

/// Choices of all units per expert: counted by kLoadBlocks blocks, each its share of the pairs, and then added to
/// loads.
struct RouterLoadsKernelParams {
  const int32_t* expert;
  const int32_t* offsets;
  int32_t* partial;  // [kLoadBlocks, experts]
  double* loads;
  Report wrongOffsets;
  Report wrongExpert;
  int64_t rows;
  int64_t units;
  int64_t experts;
  int64_t k;
};

/// UnitLoadsParams; a block per unit.
struct UnitLoadsKernelParams {
  const int32_t* expert;
  const int32_t* offsets;
  float* loads;
  Report wrongOffsets;
  Report wrongExpert;
  int64_t rows;
  int64_t experts;
  int64_t k;
};

}  // namespace dp_moe
