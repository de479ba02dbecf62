#pragma once

#include <cstdint>

#include "unit_rows.h"

namespace dp_moe {

/// counts [experts] of the block = how often the pairs first .. last - 1 chose each expert.
DEVICE void countChoices(const int32_t* expert, int64_t first, int64_t last, int64_t experts, int32_t* counts,
                         const Report& wrongExpert) {
  for (int64_t e = threadIdx.x; e < experts; e += blockDim.x) counts[e] = 0;
  __syncthreads();
  for (int64_t i = first + threadIdx.x; i < last; i += blockDim.x) {
    if (expert[i] >= 0 && expert[i] < experts) {
      atomicAdd(&counts[expert[i]], 1);
    } else {
      report(wrongExpert, expert[i]);
    }
  }
  __syncthreads();
}

}  // namespace dp_moe
