#pragma once

#include "kernels/norm_kernels.h"

namespace dp_moe::DP_MOE_ISA {

BoundedSum gram(const SegmentRows&, float* scratch);
int64_t gramScratch(int64_t count);
BoundedSum tiedCross(const TiedRows&, double* scratch);

}  // namespace dp_moe::DP_MOE_ISA
