#include "../kernels/matrix.h"

#include <algorithm>

#include "checks.h"
#include "cuda_backend.h"
#include "matrix_checks.h"
#include "matrix_grid.h"
#include "reports.h"

namespace dp_moe {

namespace {

constexpr const char* kOp = "matrixMultiply";

/// A kernel, its tile and how many of its blocks a multiprocessor holds.
struct Choice {
  std::string kernel;
  MatrixTile tile;
  int blocks;
  bool packedLoads;
};

/// By the dtype and the shape of one group's matrix. (Memory is aligned anyway; whether pieces are loaded whole changes
/// no bit.)
Choice choose(const MatrixMultiplyParams& p, DType dtype) {
  const bool isFloat32 = dtype == DType::float32;
  const int64_t perLoad = isFloat32 ? 4 : 8;
  const bool packed =
      p.k % perLoad == 0 && (p.transposed || p.n % perLoad == 0) && aligned(p.x.data) && aligned(p.weight.data);
  const auto kernel = [&](const char* form) {
    return typed((std::string("matrix_multiply_") + form + (p.transposed ? "_transposed" : "")).c_str(), dtype);
  };
  if (isFloat32) {
    return p.n > kNarrowTile.columns ? Choice{kernel("wide"), kWideTile, 1, packed}
                                     : Choice{kernel("narrow"), kNarrowTile, 4, packed};
  }
  if (!packed) return {kernel("unpacked"), kNarrowTile, 4, packed};
  if (p.n <= kNarrowTile.columns) return {kernel("narrow"), kNarrowTile, 4, packed};
  // The large tile, unless more than an eighth of its columns would be for nothing.
  const int64_t wideTiles = (p.n + kWideProductTile.columns - 1) / kWideProductTile.columns;
  return wideTiles % 2 == 0 || wideTiles > 8 ? Choice{kernel("large"), kLargeProductTile, 1, packed}
                                             : Choice{kernel("wide"), kWideProductTile, 2, packed};
}

}  // namespace

void CudaBackend::matrixMultiply(const MatrixMultiplyParams& p) {
  checkSizes(p);
  const DType dtype = realType(kOp, {p.x, p.weight, p.preActivation});
  const Choice choice = choose(p, dtype);
  const int64_t columnTiles = (p.n + choice.tile.columns - 1) / choice.tile.columns;
  // Every group may end in a tile that is not full.
  const int64_t tiles = (p.rows / choice.tile.rows + std::min(p.groups, p.rows)) * columnTiles;
  const int64_t xCount = p.x.size / p.k;
  launcher_.launch(choice.kernel, stayingGrid(launcher_, kOp, tiles, choice.blocks),
                   static_cast<uint32_t>(choice.tile.threads),
                   MatrixMultiplyKernelParams{
                       .x = p.x.data,
                       .xRows = p.xRows.data,
                       .rowScale = p.rowScale.data,
                       .weight = p.weight.data,
                       .bias = p.bias.data,
                       .groupOffsets = p.groupOffsets.data,
                       .y = p.y.data,
                       .preActivation = p.preActivation.data,
                       .wrongRow = indexReport(launcher_, kOp, "xRows", 0, xCount),
                       .wrongOffsets = offsetsReport(launcher_, kOp, "groupOffsets", p.rows),
                       .rows = p.rows,
                       .xCount = xCount,
                       .k = p.k,
                       .n = p.n,
                       .groupStride = p.groupStride,
                       .groups = static_cast<int32_t>(p.groups),
                       .activation = p.activation,
                       .yType = p.y.dtype,
                       .accumulate = p.accumulate,
                       .packedLoads = choice.packedLoads,
                       .packedStores = p.n % 8 == 0 && aligned(p.y.data) && aligned(p.preActivation.data),
                   },
                   productSharedBytes(choice.tile, dtype == DType::float32));
}

}  // namespace dp_moe
