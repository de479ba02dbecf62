#pragma once

#include <cstdint>

#include "report.h"
#include "row_team_shape.h"

namespace dp_moe {

/// LayerNormParams, and RmsNormParams with mean and bias null.
struct NormKernelParams {
  const void* x;
  const float* weight;
  const float* bias;
  void* y;
  float* mean;
  float* rstd;
  int64_t rows;
  int64_t d;
  float epsilon;
  RowOrder order;
};

/// LayerNormBackwardParams, and RmsNormBackwardParams with mean null.
struct NormBackwardKernelParams {
  const void* dy;
  const void* x;
  const float* weight;
  const float* mean;
  const float* rstd;
  const int32_t* segmentOffsets;
  void* dx;
  float* dWeight;
  float* dBias;
  Report wrongOffsets;
  int64_t rows;
  int64_t d;
  int64_t units;
  RowOrder order;
};

/// The gradients of weight and bias: a block has 32 packs of columns of a unit. Warp w adds the unit's rows w, w + 8,
/// ... in order, in parts of 64, then the warps' sums are added in order.
constexpr int kNormGradientWarps = 8;
constexpr int kNormGradientPack = 4;

}  // namespace dp_moe
