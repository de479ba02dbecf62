#pragma once

#include "kernel.h"

// Sums across threads as fixed trees: lane i meets lane i ^ 16, then i ^ 8, ... so every lane gets the same bits.

namespace dp_moe {

template <class T>
DEVICE T warpSum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kFullMask, value, distance);
  return value;
}

/// NaN where any lane has one.
DEVICE float warpMax(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(kFullMask, value, distance);
    value = other > value || other != other ? other : value;
  }
  return value;
}

}  // namespace dp_moe
