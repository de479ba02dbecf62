#pragma once

#include "params.h"

namespace dp_moe {

/// Elements [begin, end) of an update; begin is a multiple of kNormalsPerGroup.
struct UpdateKernels {
  void (*noisySgd)(const NoisySgdParams&, int64_t begin, int64_t end);
  void (*noisyAdam)(const NoisyAdamParams&, int64_t begin, int64_t end);
  /// Elements of the stream from group * kNormalsPerGroup + skip on, `count` of them.
  void (*gaussian)(const GaussianParams&, int64_t group, int64_t skip, int64_t count, float* y);
};

}  // namespace dp_moe
