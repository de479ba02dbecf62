#pragma once

#include <cstdint>

#include "report.h"
#include "row_team_shape.h"

namespace dp_moe {

struct CrossEntropyKernelParams {
  const void* logits;
  const int32_t* targets;
  float* loss;
  float* logSumExp;
  Report wrongTarget;
  int64_t rows;
  int64_t classes;
  RowOrder order;
};

struct CrossEntropyBackwardKernelParams {
  const float* dLoss;
  const void* logits;
  const int32_t* targets;
  const float* logSumExp;
  void* dLogits;
  Report wrongTarget;
  int64_t rows;
  int64_t classes;
  RowOrder order;
};

struct SoftmaxKernelParams {
  const void* x;
  void* y;
  int64_t rows;
  int64_t d;
  RowOrder order;
};

}  // namespace dp_moe
