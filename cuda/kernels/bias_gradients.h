#pragma once

#include <cstdint>

#include "report.h"

namespace dp_moe {

constexpr int kBiasThreads = 128;
constexpr int kBiasColumns = 4 * kBiasThreads;

/// A block per segment and kBiasColumns columns (blockIdx.y). values [segments, blocks of columns].
struct SegmentBiasNormsKernelParams {
  const void* dy;
  const int32_t* offsets;
  double* values;
  int64_t rows;
  int64_t p;
  Report wrongOffsets;
  bool packed;
};

/// biasGradient. A group's rows that count are numbered (keptBefore, groupRows: see weight_gradient.h); a warp takes
/// whole segments, those that start in stretches of kBiasStretch of them: stretch w, w + warps, .. for warp w of all
/// kBiasParts blocks (blockIdx.y), for 32 x 4 columns. addBiasParts adds what the blocks summed, in order.
constexpr int kBiasParts = 16;
constexpr int kBiasStretch = 128;
struct BiasGradientKernelParams {
  const void* dy;
  const int32_t* offsets;
  const float* factor;        // [units] optional
  const int32_t* keptBefore;  // [segments]
  const int32_t* groupRows;   // [groups, 2]
  double* parts;              // [groups, kBiasParts, p]
  float* gradient;
  int64_t rows;
  int64_t p;
  int64_t groups;
  int64_t units;
  int64_t columnBlocks;
  Report wrongOffsets;
  bool packed;
};

}  // namespace dp_moe
