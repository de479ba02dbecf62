#pragma once

#include <cstdint>

#include "params.h"
#include "report.h"

// The tiles of matrixMultiply and weightGradient, and the parameters of the former. See docs/cuda.md, "GEMM".

namespace dp_moe {

/// The block of an output that one block of threads makes. Which tile is used is a function of the shape of one group's
/// matrix and the dtype, never of how many rows there are.
struct MatrixTile {
  int rows;
  int columns;
  int threads;
};
constexpr MatrixTile kWideTile{128, 128, 256};
constexpr MatrixTile kNarrowTile{64, 64, 128};
/// Products in bfloat16 have larger tiles for each warp, as what is read from the L2 cache and from shared memory is
/// what limits them. (A weight gradient needs two sets of sums in registers.)
constexpr MatrixTile kWideProductTile{128, 128, 128};
constexpr MatrixTile kLargeProductTile{128, 256, 256};

// bfloat16: slabs of the reduction are copied to shared memory while earlier ones are multiplied.
constexpr int kSlab = 32;
constexpr int kStages = 4;
// float32: slabs go through registers, into one of two buffers.
constexpr int kFloat32Slab = 16;
constexpr int kFloat32Padding = 4;

DP_MOE_HOST_DEVICE constexpr int stageBytes(MatrixTile tile) { return (tile.rows + tile.columns) * kSlab * 2; }
DP_MOE_HOST_DEVICE constexpr int float32BufferFloats(MatrixTile tile) {
  return (tile.rows + tile.columns + 2 * kFloat32Padding) * kFloat32Slab;
}
/// Dynamic shared memory of a product, which also passes the finished tile through it, in bfloat16 in as many parts as
/// fit.
constexpr uint32_t productSharedBytes(MatrixTile tile, bool isFloat32) {
  if (!isFloat32) return static_cast<uint32_t>(kStages * stageBytes(tile));
  const int pipeline = 2 * float32BufferFloats(tile) * 4;
  const int finished = tile.rows * tile.columns * 4;
  return static_cast<uint32_t>(pipeline > finished ? pipeline : finished);
}

/// MatrixMultiplyParams. x has `xCount` rows; those of group g start at groupOffsets[g * groupStride] (null: one
/// group).
struct MatrixMultiplyKernelParams {
  const void* x;
  const int32_t* xRows;
  const float* rowScale;
  const void* weight;
  const float* bias;
  const int32_t* groupOffsets;
  void* y;
  void* preActivation;
  Report wrongRow;
  Report wrongOffsets;
  int64_t rows;
  int64_t xCount;
  int64_t k;
  int64_t n;
  int64_t groupStride;
  int32_t groups;
  Activation activation;
  DType yType;
  bool accumulate;
  bool packedLoads;   // rows of x and lines of weight start at multiples of 16 bytes
  bool packedStores;  // rows of y and preActivation do
};

}  // namespace dp_moe
