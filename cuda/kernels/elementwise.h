#pragma once

#include <cstdint>

#include "params.h"
#include "row_walk.h"

namespace dp_moe {

constexpr int kElementwiseThreads = 256;

/// CastParams, AddParams, MultiplyParams, ClampParams, ClampBackwardParams, ActivationParams: a thread makes one pack
/// of y. b may be null in add.
struct ElementsKernelParams {
  const void* a;
  const void* b;
  void* y;
  int64_t size;
  float first;   // alpha; low
  float second;  // beta; high
  Activation activation;
};

/// ActivationBackwardParams, GatedActivationParams and GatedActivationBackwardParams: x is the activation's argument.
struct ActivationRowsKernelParams {
  RowWalk walk;
  const void* dy;
  const void* x;
  const void* up;
  const float* rowScale;
  void* y;  // dx, y, dGate
  void* dUp;
  Activation activation;
};

constexpr int kRowDotThreads = 256;

/// RowDotParams; b has `bRowCount` rows. A warp makes one row: lane l adds the elements of packs l, l + 32, ... in
/// order.
struct RowDotKernelParams {
  const void* a;
  const void* b;
  const int32_t* bRows;
  const int32_t* count;
  float* y;
  Report wrongRow;
  int64_t rows;
  int64_t d;
  int64_t bRowCount;
  bool packed;
};

}  // namespace dp_moe
