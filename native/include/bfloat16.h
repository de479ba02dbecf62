#pragma once

#include <cstdint>

// Shared by the host and the CUDA kernels.
#ifdef __CUDACC__
#define DP_MOE_HOST_DEVICE __host__ __device__
#else
#define DP_MOE_HOST_DEVICE
#endif

namespace dp_moe {

/// The upper half of a float32's bits. Storage only: every computation is in float32.
struct bfloat16 {
  uint16_t bits;
};

DP_MOE_HOST_DEVICE inline float toFloat(bfloat16 value) {
  union {
    uint32_t bits;
    float value;
  } wide;
  wide.bits = static_cast<uint32_t>(value.bits) << 16;
  return wide.value;
}

/// Round to nearest, ties to even; a NaN stays one.
DP_MOE_HOST_DEVICE inline bfloat16 toBfloat16(float value) {
  union {
    float value;
    uint32_t bits;
  } wide;
  wide.value = value;
  if ((wide.bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(wide.bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((wide.bits + 0x7fffu + (wide.bits >> 16 & 1)) >> 16)};
}

}  // namespace dp_moe
