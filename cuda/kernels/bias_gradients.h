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

/// biasGradient, on the lists of rows of the weight gradient. A block takes the chunks y, y + kBiasParts, .. of a group
/// (y = blockIdx.y), of kBiasChunk of its rows each, and 32 x 4 columns; addBiasParts adds what they summed, in order.
constexpr int kBiasParts = 16;
constexpr int kBiasChunk = 512;
struct BiasGradientKernelParams {
  const void* dy;
  const int32_t* groupRows;  // [groups, 2]: where a group's list starts, and its length
  const int32_t* dyRow;
  const float* scale;
  float* parts;  // [groups, kBiasParts, p]
  float* gradient;
  int64_t p;
  int64_t groups;
  int64_t columnBlocks;
  bool packed;
};

}  // namespace dp_moe
