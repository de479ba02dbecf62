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

/// The sum over a block, in every thread: warps in order. `parts` has room for a value per warp; it may be written
/// again after the next barrier.
template <class T>
DEVICE T blockSum(T value, T* parts) {
  value = warpSum(value);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  T sum = parts[0];
  for (uint32_t warp = 1; warp < blockDim.x / kWarp; ++warp) sum += parts[warp];
  return sum;
}

/// Of one number per thread: the sum of those before this thread's and the sum of all. `parts` as for blockSum.
struct Scan {
  int32_t before;
  int32_t total;
};
DEVICE Scan blockScan(int32_t value, int32_t* parts) {
  const auto warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  int32_t upTo = value;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t earlier = __shfl_up_sync(kFullMask, upTo, static_cast<unsigned>(distance));
    if (lane >= distance) upTo += earlier;
  }
  if (lane == kWarp - 1) parts[warp] = upTo;
  __syncthreads();
  Scan scan{upTo - value, 0};
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) {
    if (w < warp) scan.before += parts[w];
    scan.total += parts[w];
  }
  return scan;
}

}  // namespace dp_moe
