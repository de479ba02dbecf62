#include "../kernels/weight_gradient.h"

#include "../kernels/norms.h"
#include "checks.h"
#include "cuda_backend.h"
#include "matrix_checks.h"
#include "matrix_grid.h"
#include "reports.h"
#include "row_grids.h"
#include "segment_operands.h"

namespace dp_moe {

namespace {

constexpr const char* kOp = "weightGradient";

/// A kernel, its tile and how many of its blocks a multiprocessor holds.
struct Choice {
  std::string kernel;
  MatrixTile tile;
  int blocks;
};

/// By the dtype, p and d, as matrixMultiply does.
Choice choose(const WeightGradientParams& p, DType dtype) {
  const bool isFloat32 = dtype == DType::float32;
  const bool packed = isFloat32 || (p.p % 8 == 0 && p.d % 8 == 0 && aligned(p.dy.data) && aligned(p.x.data));
  const bool wide = packed && p.p > kNarrowTile.rows && p.d > kNarrowTile.columns;
  const char* form = wide ? "weight_gradient_wide" : packed ? "weight_gradient_narrow" : "weight_gradient_unpacked";
  return {typed(form, dtype), wide ? kWideTile : kNarrowTile, wide ? 1 : 3};
}

}  // namespace

void CudaBackend::weightGradient(const WeightGradientParams& p) {
  checkSizes(p);
  const DType dtype = realType(kOp, {p.dy, p.x});
  const int64_t groups = p.segments / p.units, elements = p.p * p.d;
  const int64_t xCount = p.x.size / p.d, tileCount = p.tiles.size / elements;
  const Choice choice = choose(p, dtype);
  const int64_t tiles =
      ((p.p + choice.tile.rows - 1) / choice.tile.rows) * ((p.d + choice.tile.columns - 1) / choice.tile.columns);
  const int64_t chunkRows = gradientChunkRows(tiles);

  auto* lists = launcher_.scratch<int32_t>(0, p.segments + 3 * groups + 2 * p.rows);
  const WeightGradientKernelParams params{
      .dy = p.dy.data,
      .x = p.x.data,
      .xRows = p.xRows.data,
      .segmentOffsets = p.segmentOffsets.data,
      .factor = p.factor.data,
      .tileOf = p.tileOf.data,
      .tiles = p.tiles.data,
      .gradient = p.gradient.data,
      .wrongRow = indexReport(launcher_, kOp, "xRows", 0, xCount),
      .wrongOffsets = offsetsReport(launcher_, kOp, "segmentOffsets", p.rows),
      .wrongTile = indexReport(launcher_, kOp, "tileOf", kTileOfRows, tileCount),
      .keptBefore = lists,
      .groupRows = lists + p.segments,
      .groupHasTile = lists + p.segments + 2 * groups,
      .dyRow = lists + p.segments + 3 * groups,
      .xRow = lists + p.segments + 3 * groups + p.rows,
      .scale = launcher_.scratch<float>(1, p.rows),
      .partials = launcher_.scratch<float>(2, p.rows / chunkRows * elements),
      .rows = p.rows,
      .xCount = xCount,
      .tileCount = tileCount,
      .p = p.p,
      .d = p.d,
      .segments = p.segments,
      .units = p.units,
      .groups = static_cast<int32_t>(groups),
      .chunkRows = static_cast<int32_t>(chunkRows),
      .packedStores = p.d % 2 == 0 && aligned(p.gradient.data),
  };
  launcher_.launch("weight_gradient_segments", {static_cast<uint32_t>(groups)}, kGradientRowsThreads, params);
  launcher_.launch("weight_gradient_rows", {blocksFor(p.segments * kThreadsPerSegment, kGradientRowsThreads)},
                   kGradientRowsThreads, params);
  const int64_t sums = (p.rows / chunkRows + std::min(groups, p.rows)) * tiles;
  launcher_.launch(choice.kernel, stayingGrid(launcher_, kOp, sums, choice.blocks),
                   static_cast<uint32_t>(choice.tile.threads), params,
                   gradientSharedBytes(choice.tile, dtype == DType::float32));
  if (p.tileOf.data == nullptr && p.rows <= chunkRows) return;
  launcher_.launch("weight_gradient_finish",
                   {static_cast<uint32_t>(groups) * blocksFor(elements, kGradientRowsThreads)}, kGradientRowsThreads,
                   params);
  if (p.tileOf.data == nullptr) return;
  const TilesOfRowsParams cancelling{
      .operands = segmentOperands(p, dtype, params.wrongOffsets, params.wrongRow),
      .tileOf = p.tileOf.data,
      .factor = p.factor.data,
      .groupHasTile = params.groupHasTile,
      .gradient = p.gradient.data,
      .groups = groups,
      .units = p.units,
  };
  const int64_t items = groups * ((p.p + kTileRows - 1) / kTileRows) * ((p.d + kTileColumns - 1) / kTileColumns);
  launcher_.launch(typed("tilesOfRows", dtype),
                   {static_cast<uint32_t>(std::min(items, int64_t{launcher_.multiprocessors()}))}, kNormThreads,
                   cancelling);
}

}  // namespace dp_moe
