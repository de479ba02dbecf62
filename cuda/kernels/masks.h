#pragma once

#include <cstdint>

#include "report.h"

namespace dp_moe {

constexpr int kMaskThreads = 128;
/// Elements that the 16 neighbouring threads of a group make per turn (native/random/masks.h).
constexpr int kMaskGroup = 256;

/// DropoutParams and JitterParams. The blocks of blockIdx.x = unit share the unit's groups of 256 elements; a thread
/// makes one block of ChaCha, 16 elements 16 apart.
struct MaskKernelParams {
  const void* x;
  const int32_t* segmentOffsets;
  const int32_t* unitIds;
  const int32_t* key;
  void* y;
  Report wrongOffsets;
  int64_t rows;
  int64_t d;
  uint32_t step;
  uint32_t site;
  uint32_t threshold;  // of dropout
  float amount;        // dropout: 1 / (1 - rate); jitter: epsilon
};

}  // namespace dp_moe
