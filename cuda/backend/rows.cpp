#include "../kernels/rows.h"

#include "checks.h"
#include "cuda_backend.h"
#include "row_grids.h"

namespace dp_moe {

namespace {

void checkConcatenation(int64_t aSize, const Input<int32_t>& aOffsets, int64_t bSize, const Input<int32_t>& bOffsets,
                        int64_t ySize, int64_t d, int64_t units, const char* op) {
  checkThat(d > 0 && units >= 0, op, "d above 0 and units of at least 0");
  checkSize(aOffsets, units + 1, op, "aOffsets");
  checkSize(bOffsets, units + 1, op, "bOffsets");
  checkSizeIs(aSize % d, 0, op, "the remainder of a by d");
  checkSizeIs(bSize % d, 0, op, "the remainder of b by d");
  checkSizeIs(ySize, aSize + bSize, op, "y");
}

/// P: ConcatenateRowsParams or ConcatenateIndicesParams.
template <class P>
void concatenate(Launcher& launcher, const P& p, int64_t d, DType dtype, const char* op) {
  const bool packed = packedRows(d, dtype, {p.a.data, p.b.data, p.y.data});
  const int64_t aRows = p.a.size / d;
  const int64_t bRows = p.b.size / d;
  const UnitWalk walk = unitWalk(p.aOffsets, offsetsReport(launcher, op, "aOffsets", aRows), aRows, d, dtype, packed);
  launcher.launch(typed("concatenate", dtype), gridOf(walk, p.units, aRows + bRows), kRowThreads,
                  ConcatenateKernelParams{walk, p.a.data, p.b.data, p.bOffsets.data, p.y.data,
                                          offsetsReport(launcher, op, "bOffsets", bRows), bRows});
}

}  // namespace

void CudaBackend::embedding(const EmbeddingParams& p) {
  checkSize(p.table, p.vocabulary * p.d, "embedding", "table");
  checkSize(p.ids, p.rows, "embedding", "ids");
  checkSize(p.y, p.rows * p.d, "embedding", "y");
  const bool packed = packedRows(p.d, p.y.dtype, {p.table.data, p.y.data});
  const RowWalk walk = rowWalk(p.rows, p.d, {}, p.y.dtype, packed);
  launcher_.launch(
      typed("embedding", p.y.dtype), gridOf(walk), kRowThreads,
      EmbeddingKernelParams{walk, p.table.data, p.ids.data, p.y.data,
                            indexReport(launcher_, "embedding", "ids", 0, p.vocabulary), p.vocabulary, p.scale});
}

void CudaBackend::pool(const PoolParams& p) {
  checkSize(p.x, p.rows * p.d, "pool", "x");
  checkOptionalSize(p.weights, p.rows, "pool", "weights");
  checkSize(p.segmentOffsets, p.units + 1, "pool", "segmentOffsets");
  checkSize(p.y, p.units * p.d, "pool", "y");
  const DType dtype = realType("pool", {p.x, p.y});
  const bool packed = packedRows(p.d, dtype, {p.x.data, p.y.data});
  const auto columnBlocks = static_cast<int32_t>(blocksFor(packed ? p.d / packOf(dtype) : p.d, 32));
  launcher_.launch(
      typed("pool", dtype), {static_cast<uint32_t>(p.units * columnBlocks)}, kPoolWarps * 32,
      PoolKernelParams{p.x.data, p.weights.data, p.segmentOffsets.data, p.y.data,
                       offsetsReport(launcher_, "pool", "segmentOffsets", p.rows), p.rows, p.d, columnBlocks, packed});
}

void CudaBackend::poolBackward(const PoolBackwardParams& p) {
  checkSize(p.dy, p.units * p.d, "poolBackward", "dy");
  checkOptionalSize(p.weights, p.rows, "poolBackward", "weights");
  checkSize(p.segmentOffsets, p.units + 1, "poolBackward", "segmentOffsets");
  checkSize(p.dx, p.rows * p.d, "poolBackward", "dx");
  const DType dtype = realType("poolBackward", {p.dy, p.dx});
  const bool packed = packedRows(p.d, dtype, {p.dy.data, p.dx.data});
  const UnitWalk walk = unitWalk(p.segmentOffsets, offsetsReport(launcher_, "poolBackward", "segmentOffsets", p.rows),
                                 p.rows, p.d, dtype, packed);
  launcher_.launch(typed("poolBackward", dtype), gridOf(walk, p.units, p.rows), kRowThreads,
                   PoolBackwardKernelParams{walk, p.dy.data, p.weights.data, p.dx.data});
}

void CudaBackend::gatherRows(const GatherRowsParams& p) {
  checkColumns(p.x, p.d, "gatherRows", "x");
  checkSize(p.index, p.rows, "gatherRows", "index");
  checkOptionalSize(p.scale, p.rows, "gatherRows", "scale");
  checkSize(p.y, p.rows * p.d, "gatherRows", "y");
  const DType dtype = realType("gatherRows", {p.x, p.y});
  const bool packed = packedRows(p.d, dtype, {p.x.data, p.y.data});
  const RowWalk walk = rowWalk(p.rows, p.d, p.countOffsets, dtype, packed);
  const int64_t xRows = p.x.size / p.d;
  launcher_.launch(typed("gatherRows", dtype), gridOf(walk), kRowThreads,
                   GatherRowsKernelParams{walk, p.x.data, p.index.data, p.scale.data, p.y.data,
                                          indexReport(launcher_, "gatherRows", "index", 0, xRows), xRows});
}

void CudaBackend::combineRows(const CombineRowsParams& p) {
  checkColumns(p.x, p.d, "combineRows", "x");
  checkSize(p.slot, p.rows * p.perRow, "combineRows", "slot");
  checkOptionalSize(p.weight, p.rows * p.perRow, "combineRows", "weight");
  checkSize(p.y, p.rows * p.d, "combineRows", "y");
  const DType dtype = realType("combineRows", {p.x, p.y});
  const bool packed = packedRows(p.d, dtype, {p.x.data, p.y.data});
  const RowWalk walk = rowWalk(p.rows, p.d, {}, dtype, packed);
  const int64_t xRows = p.x.size / p.d;
  launcher_.launch(typed("combineRows", dtype), gridOf(walk), kRowThreads,
                   CombineRowsKernelParams{walk, p.x.data, p.slot.data, p.weight.data, p.y.data,
                                           indexReport(launcher_, "combineRows", "slot", INT32_MIN, xRows), xRows,
                                           p.perRow, p.accumulate});
}

void CudaBackend::concatenateRows(const ConcatenateRowsParams& p) {
  checkConcatenation(p.a.size, p.aOffsets, p.b.size, p.bOffsets, p.y.size, p.d, p.units, "concatenateRows");
  concatenate(launcher_, p, p.d, realType("concatenateRows", {p.a, p.b, p.y}), "concatenateRows");
}

void CudaBackend::concatenateIndices(const ConcatenateIndicesParams& p) {
  checkConcatenation(p.a.size, p.aOffsets, p.b.size, p.bOffsets, p.y.size, 1, p.units, "concatenateIndices");
  concatenate(launcher_, p, 1, DType::int32, "concatenateIndices");
}

}  // namespace dp_moe
