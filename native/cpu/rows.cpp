#include <cstring>
#include <string>

#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

namespace {

void checkConcatenation(int64_t aSize, const Input<int32_t>& aOffsets, int64_t bSize, const Input<int32_t>& bOffsets,
                        int64_t ySize, int64_t d, int64_t units, const char* op) {
  checkThat(d > 0 && units >= 0, op, "d above 0 and units of at least 0");
  checkOffsets(aOffsets, units, aSize / d, op, "aOffsets");
  checkOffsets(bOffsets, units, bSize / d, op, "bOffsets");
  checkSizeIs(aSize % d, 0, op, "the remainder of a by d");
  checkSizeIs(bSize % d, 0, op, "the remainder of b by d");
  checkSizeIs(ySize, aSize + bSize, op, "y");
}

/// y = per unit a's elements, then b's, in rows of d.
template <class T>
void concatenate(ThreadPool& threads, const T* a, const Input<int32_t>& aOffsets, const T* b,
                 const Input<int32_t>& bOffsets, T* y, int64_t d, int64_t units) {
  parallelRanges(threads, units, 16, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t aFirst = aOffsets.data[u] * d;
      const int64_t bFirst = bOffsets.data[u] * d;
      const int64_t aCount = aOffsets.data[u + 1] * d - aFirst;
      const int64_t bCount = bOffsets.data[u + 1] * d - bFirst;
      T* out = y + aFirst + bFirst;
      if (aCount > 0) std::memcpy(out, a + aFirst, static_cast<size_t>(aCount) * sizeof(T));
      if (bCount > 0) std::memcpy(out + aCount, b + bFirst, static_cast<size_t>(bCount) * sizeof(T));
    }
  });
}

}  // namespace

void CpuBackend::embedding(const EmbeddingParams& p) {
  checkSize(p.table, p.vocabulary * p.d, "embedding", "table");
  checkSize(p.ids, p.rows, "embedding", "ids");
  checkSize(p.y, p.rows * p.d, "embedding", "y");
  checkIndices(p.ids, p.rows, 0, p.vocabulary, "embedding", "ids");
  parallelRanges(threads_, p.rows, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.rows.embedding(p, begin, end); });
}

void CpuBackend::pool(const PoolParams& p) {
  checkSize(p.x, p.rows * p.d, "pool", "x");
  checkOptionalSize(p.weights, p.rows, "pool", "weights");
  checkOffsets(p.segmentOffsets, p.units, p.rows, "pool", "segmentOffsets");
  checkSize(p.y, p.units * p.d, "pool", "y");
  parallelRanges(threads_, p.units, 1, [&](int64_t begin, int64_t end) { kernels_.rows.pool(p, begin, end); });
}

void CpuBackend::poolBackward(const PoolBackwardParams& p) {
  checkSize(p.dy, p.units * p.d, "poolBackward", "dy");
  checkOptionalSize(p.weights, p.rows, "poolBackward", "weights");
  checkOffsets(p.segmentOffsets, p.units, p.rows, "poolBackward", "segmentOffsets");
  checkSize(p.dx, p.rows * p.d, "poolBackward", "dx");
  parallelRanges(threads_, p.units, 1, [&](int64_t begin, int64_t end) { kernels_.rows.poolBackward(p, begin, end); });
}

void CpuBackend::gatherRows(const GatherRowsParams& p) {
  checkColumns(p.x, p.d, "gatherRows", "x");
  checkSize(p.index, p.rows, "gatherRows", "index");
  checkOptionalSize(p.scale, p.rows, "gatherRows", "scale");
  checkSize(p.y, p.rows * p.d, "gatherRows", "y");
  const int64_t count = countedRows(p.countOffsets, p.rows);
  checkIndices(p.index, count, 0, p.x.size / p.d, "gatherRows", "index");
  parallelRanges(threads_, count, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.rows.gatherRows(p, begin, end); });
}

void CpuBackend::combineRows(const CombineRowsParams& p) {
  checkColumns(p.x, p.d, "combineRows", "x");
  checkSize(p.slot, p.rows * p.perRow, "combineRows", "slot");
  checkOptionalSize(p.weight, p.rows * p.perRow, "combineRows", "weight");
  checkSize(p.y, p.rows * p.d, "combineRows", "y");
  checkIndices(p.slot, p.rows * p.perRow, INT32_MIN, p.x.size / p.d, "combineRows", "slot");
  parallelRanges(threads_, p.rows, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.rows.combineRows(p, begin, end); });
}

void CpuBackend::concatenateRows(const ConcatenateRowsParams& p) {
  checkConcatenation(p.a.size, p.aOffsets, p.b.size, p.bOffsets, p.y.size, p.d, p.units, "concatenateRows");
  concatenate(threads_, p.a.data, p.aOffsets, p.b.data, p.bOffsets, p.y.data, p.d, p.units);
}

void CpuBackend::concatenateIndices(const ConcatenateIndicesParams& p) {
  checkConcatenation(p.a.size, p.aOffsets, p.b.size, p.bOffsets, p.y.size, 1, p.units, "concatenateIndices");
  concatenate(threads_, p.a.data, p.aOffsets, p.b.data, p.bOffsets, p.y.data, 1, p.units);
}

}  // namespace dp_moe
