#pragma once

#include "params.h"

namespace dp_moe {

/// [begin, end) are units.
struct MaskKernels {
  void (*dropout)(const DropoutParams&, int64_t begin, int64_t end);
  void (*jitter)(const JitterParams&, int64_t begin, int64_t end);
};

}  // namespace dp_moe
