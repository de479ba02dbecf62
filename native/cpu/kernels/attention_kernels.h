#pragma once

#include "params.h"

namespace dp_moe {

/// One call does one unit and one key/value head with all query heads that share it. `scratch` is 64-byte aligned.
struct AttentionKernels {
  int64_t (*scratchSize)(int64_t headSize);  // floats, whatever the unit's length
  void (*attention)(const AttentionParams&, int64_t unit, int64_t keyValueHead, float* scratch);
  void (*attentionBackward)(const AttentionBackwardParams&, int64_t unit, int64_t keyValueHead, float* scratch);
};

}  // namespace dp_moe
