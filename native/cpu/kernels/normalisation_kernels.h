#pragma once

#include "params.h"

namespace dp_moe {

/// [begin, end) are rows in the forward pass, units in the backward pass.
struct NormalisationKernels {
  void (*layerNorm)(const LayerNormParams&, int64_t begin, int64_t end);
  void (*layerNormBackward)(const LayerNormBackwardParams&, int64_t begin, int64_t end);
  void (*rmsNorm)(const RmsNormParams&, int64_t begin, int64_t end);
  void (*rmsNormBackward)(const RmsNormBackwardParams&, int64_t begin, int64_t end);
};

}  // namespace dp_moe
