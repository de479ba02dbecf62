#pragma once

#include <cstdint>

namespace dp_moe {

constexpr int kRotaryThreads = 256;

/// RotaryEmbeddingParams. A thread turns the pairs of one row and frequency in every head.
struct RotaryKernelParams {
  const void* x;
  const int32_t* positions;
  const float* inverseFrequency;
  void* y;
  int64_t rows;
  int64_t heads;
  int64_t half;  // pairs of a head
  bool inverse;
};

}  // namespace dp_moe
