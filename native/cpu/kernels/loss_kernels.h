#pragma once

#include "params.h"

namespace dp_moe {

/// [begin, end) are rows.
struct LossKernels {
  void (*crossEntropy)(const CrossEntropyParams&, int64_t begin, int64_t end);
  void (*crossEntropyBackward)(const CrossEntropyBackwardParams&, int64_t begin, int64_t end);
  void (*softmax)(const SoftmaxParams&, int64_t begin, int64_t end);
};

}  // namespace dp_moe
