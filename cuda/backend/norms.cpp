#include "../kernels/norms.h"

#include <algorithm>

#include "../kernels/bias_gradients.h"
#include "../kernels/weight_gradient.h"
#include "checks.h"
#include "cuda_backend.h"
#include "norm_checks.h"
#include "row_grids.h"
#include "segment_operands.h"

namespace dp_moe {

namespace {

constexpr int64_t kGuardParts = 8;  // of the tile of a segment that is made for its norm alone

/// The fewest rows with n^2 >= 20 h, h = d p / (d + p), in whole numbers.
int64_t fewestForTile(int64_t d, int64_t p) {
  int64_t n = 1;
  while (n * n * (d + p) < 20 * d * p) ++n;
  return n;
}

SegmentOperands operandsOf(Launcher& launcher, const SegmentGradientNormsParams& p, DType dtype) {
  constexpr const char* op = "segmentGradientNorms";
  return segmentOperands(p, dtype, offsetsReport(launcher, op, "segmentOffsets", p.rows),
                         indexReport(launcher, op, "xRows", 0, p.x.size / p.d));
}

}  // namespace

void CudaBackend::segmentGradientNorms(const SegmentGradientNormsParams& p) {
  checkSizes(p);
  if (p.segments == 0) return;
  const DType dtype = realType("segmentGradientNorms", {p.dy, p.x});
  const SegmentOperands operands = operandsOf(launcher_, p, dtype);
  const int64_t fewest = fewestForTile(p.d, p.p);
  const int64_t blocks = ((p.p + kTileRows - 1) / kTileRows) * ((p.d + kTileColumns - 1) / kTileColumns);
  // Segments share the rows: no more than that many are long, or have rows at all.
  const int64_t mostLong = std::min(p.segments, p.rows / fewest), mostGuarded = std::min(p.segments, p.rows);
  const int64_t guardParts = std::min(kGuardParts, blocks);

  auto* values = launcher_.scratch<double>(0, p.segments);
  auto* partNorms = launcher_.scratch<double>(1, mostLong * blocks + mostGuarded * guardParts);
  auto* numbers = launcher_.scratch<int32_t>(2, 2 + p.segments + mostLong + mostGuarded);
  int32_t* marks = numbers + 2;
  int32_t* longList = marks + p.segments;
  int32_t* guardedList = longList + mostLong;

  NumberSegmentsParams number{};
  number.offsets = p.segmentOffsets.data;
  number.list = longList;
  number.count = numbers;
  number.tileOf = p.tileOf.data;
  number.rows = p.rows;
  number.segments = p.segments;
  number.fewest = fewest;
  number.capacity = mostLong;
  number.most = p.maxTiles;
  number.wrongOffsets = operands.wrongOffsets;
  number.tooMany = {launcher_.status(),
                    launcher_.errorCode([most = p.maxTiles](int32_t count) { return tooManyTiles(most, count); })};
  const Dim numberGrid{blocksFor(p.segments, kNumberThreads)};
  launcher_.launch("numberSegments", numberGrid, kNumberThreads, number);

  // Few segments: a block for each, so that all multiprocessors have work.
  const bool few = p.segments < int64_t{16} * launcher_.multiprocessors();
  const GramParams gram{operands, values, marks, p.tileOf.data, fewest, few ? 1 : kMostSegmentsPerBlock};
  launcher_.launch(typed("gramOfShort", dtype), {blocksFor(p.segments, kShortThreads / 32)}, kShortThreads, gram);
  if (fewest > kShortestOfLong) {
    launcher_.launch(typed("gramOfLong", dtype), {blocksFor(p.segments, gram.segmentsPerBlock)}, kLongThreads, gram);
  }

  number.marks = marks;
  number.list = guardedList;
  number.count = numbers + 1;
  number.tileOf = nullptr;
  number.capacity = mostGuarded;
  launcher_.launch("numberSegments", numberGrid, kNumberThreads, number);

  const bool keep = p.tileOf.data != nullptr;
  const TileNormsParams tiles{operands,
                              {{longList, numbers, partNorms, mostLong, blocks},
                               {guardedList, numbers + 1, partNorms + mostLong * blocks, mostGuarded, guardParts}},
                              keep ? p.tiles.data : nullptr,
                              keep ? p.maxTiles : 0,
                              values};
  const int64_t items = mostLong * blocks + mostGuarded * guardParts;
  const int64_t resident = int64_t{2} * launcher_.multiprocessors();
  launcher_.launch(typed("tileNorms", dtype), {static_cast<uint32_t>(std::min(items, resident))}, kNormThreads, tiles);
  const uint32_t totals =
      std::min<uint32_t>(blocksFor(mostLong + mostGuarded, kNormThreads / 32), static_cast<uint32_t>(resident));
  launcher_.launch("totalTiles", {totals}, kNormThreads, tiles);
  launcher_.launch("sumOfSegments", {blocksFor(p.units, kNormThreads)}, kNormThreads,
                   SumOfSegmentsParams{values, p.normSquared.data, p.segments, p.units, 1});
}

void CudaBackend::segmentBiasNorms(const SegmentBiasNormsParams& p) {
  checkSizes(p);
  const int64_t parts = blocksFor(p.p, kBiasColumns);
  auto* values = launcher_.scratch<double>(0, p.segments * parts);
  launcher_.launch(typed("segmentBiasNorms", p.dy.dtype),
                   {static_cast<uint32_t>(p.segments), static_cast<uint32_t>(parts)}, kBiasThreads,
                   SegmentBiasNormsKernelParams{p.dy.data, p.segmentOffsets.data, values, p.rows, p.p,
                                                offsetsReport(launcher_, "segmentBiasNorms", "segmentOffsets", p.rows),
                                                packedRows(p.p, p.dy.dtype, {p.dy.data})});
  launcher_.launch("sumOfSegments", {blocksFor(p.units, kNormThreads)}, kNormThreads,
                   SumOfSegmentsParams{values, p.normSquared.data, p.segments, p.units, parts});
}

void CudaBackend::biasGradient(const BiasGradientParams& p) {
  checkSizes(p);
  const int64_t groups = p.segments / p.units;
  const int64_t columnBlocks = blocksFor(p.p, 32 * 4);
  const Report wrongOffsets = offsetsReport(launcher_, "biasGradient", "segmentOffsets", p.rows);
  auto* lists = launcher_.scratch<int32_t>(0, p.segments + 3 * groups);
  WeightGradientKernelParams rows{};
  rows.segmentOffsets = p.segmentOffsets.data;
  rows.factor = p.factor.data;
  rows.wrongOffsets = wrongOffsets;
  rows.keptBefore = lists;
  rows.groupRows = lists + p.segments;
  rows.groupHasTile = rows.groupRows + 2 * groups;
  rows.rows = p.rows;
  rows.segments = p.segments;
  rows.units = p.units;
  launcher_.launch("weight_gradient_segments", {static_cast<uint32_t>(groups)}, kGradientRowsThreads, rows);
  const BiasGradientKernelParams params{.dy = p.dy.data,
                                        .offsets = p.segmentOffsets.data,
                                        .factor = p.factor.data,
                                        .keptBefore = rows.keptBefore,
                                        .groupRows = rows.groupRows,
                                        .parts = launcher_.scratch<double>(2, groups * kBiasParts * p.p),
                                        .gradient = p.gradient.data,
                                        .rows = p.rows,
                                        .p = p.p,
                                        .groups = groups,
                                        .units = p.units,
                                        .columnBlocks = columnBlocks,
                                        .wrongOffsets = wrongOffsets,
                                        .packed = packedRows(p.p, p.dy.dtype, {p.dy.data})};
  launcher_.launch(typed("biasGradient", p.dy.dtype), {static_cast<uint32_t>(groups * columnBlocks), kBiasParts},
                   kBiasThreads, params);
  launcher_.launch("addBiasParts", {blocksFor(groups * p.p, kBiasThreads)}, kBiasThreads, params);
}

}  // namespace dp_moe
