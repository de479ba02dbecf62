#pragma once

#include "params.h"

namespace dp_moe {

/// One call does one unit and one key/value head with all query heads that share it. `scratch` is 64-byte aligned; with
/// a bias it holds (heads / keyValueHeads + 1) * (2 * span - 1) floats more.
struct AttentionKernels {
  int64_t (*scratchSize)(int64_t headSize);  // floats, whatever the unit's length
  void (*attention)(const AttentionParams&, int64_t unit, int64_t keyValueHead, float* scratch);
  void (*attentionBackward)(const AttentionBackwardParams&, int64_t unit, int64_t keyValueHead, float* scratch);
};

}  // namespace dp_moe
