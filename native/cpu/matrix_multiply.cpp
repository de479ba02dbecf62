#include <algorithm>
#include <vector>

#include "cpu_backend.h"
#include "matrix_checks.h"
#include "ranges.h"

// The weight is packed once per call, in passes of a bounded size, and shared by all threads; the rows of y are cut
// into blocks. Where a group is one block of rows, the block's task packs for itself, or reads the weight in place. How
// y is cut and what is packed is a matter of speed only: no element of y depends on it.

namespace dp_moe {

namespace {

constexpr const char* kOp = "matrixMultiply";
constexpr int64_t kMostBlockColumns = 256;
constexpr int64_t kPackColumns = 64;
constexpr int64_t kMostBlockRows = 96;
constexpr int64_t kFewestBlockRows = 24;
constexpr int64_t kPassFloats = int64_t{1} << 21;  // 8 MiB of packed weight at a time
constexpr int64_t kSerialWork = 1 << 17;           // multiply-adds below which waking threads costs more

enum class Packing { ahead, inTask, none };

struct ColumnBlock {
  int64_t group;
  int64_t first;
  int64_t columns;
  Packing packing;
  float* packed;
};

struct RowBlock {
  const ColumnBlock* columnBlock;
  int64_t first;
  int64_t rows;
};

void check(const MatrixMultiplyParams& p) {
  checkSizes(p);
  int64_t rows = p.rows;
  if (p.groupOffsets.data != nullptr) {
    checkOffsets(p.groupOffsets, p.groups * p.groupStride, p.rows, kOp, "groupOffsets");
    rows = p.groupOffsets.data[p.groups * p.groupStride];
  }
  if (p.xRows.data != nullptr) checkIndices(p.xRows, rows, 0, p.x.size / p.k, kOp, "xRows");
}

int64_t firstRow(const MatrixMultiplyParams& p, int64_t group) {
  if (p.groupOffsets.data == nullptr) return group == 0 ? 0 : p.rows;
  return p.groupOffsets.data[group * p.groupStride];
}

ProductBlock blockOf(const MatrixMultiplyParams& p, const ColumnBlock& columns, const RowBlock& rows,
                     const float* packed, float* partial) {
  const int64_t corner = rows.first * p.n + columns.first;
  return {
      .x = p.xRows.data == nullptr ? p.x.data + rows.first * p.k : p.x.data,
      .xRows = p.xRows.data == nullptr ? nullptr : p.xRows.data + rows.first,
      .rowScale = p.rowScale.data == nullptr ? nullptr : p.rowScale.data + rows.first,
      .weight = columns.packing == Packing::none ? p.weight.data + columns.group * p.n * p.k + columns.first : packed,
      .bias = p.bias.data == nullptr ? nullptr : p.bias.data + columns.group * p.n + columns.first,
      .y = p.y.data + corner,
      .preActivation = p.preActivation.data == nullptr ? nullptr : p.preActivation.data + corner,
      .partial = partial,
      .rows = rows.rows,
      .columns = columns.columns,
      .k = p.k,
      .n = p.n,
      .packed = columns.packing != Packing::none,
      .accumulate = p.accumulate,
      .activation = p.activation,
  };
}

/// Columns per block: where rows are few, fewer, so that every thread has some.
int64_t blockColumns(const MatrixMultiplyParams& p, int64_t rows, int threads) {
  int64_t columns = kMostBlockColumns;
  const int64_t rowBlocks = (rows + kFewestBlockRows - 1) / kFewestBlockRows;
  while (threads > 1 && columns > kPackColumns && rowBlocks * ((p.n + columns - 1) / columns) < int64_t{2} * threads) {
    columns /= 2;
  }
  return columns;
}

/// Rows per block: enough blocks that threads finish together, and rows enough that a panel is used while in cache.
int64_t blockRows(int64_t rows, int64_t columnBlocks, int threads) {
  if (threads == 1) return kMostBlockRows;
  const int64_t even = rows * columnBlocks / (int64_t{4} * threads);
  return std::clamp(even, kFewestBlockRows, kMostBlockRows);
}

}  // namespace

void CpuBackend::matrixMultiply(const MatrixMultiplyParams& p) {
  check(p);
  const MatrixKernels& kernels = kernels_.matrix;
  const int64_t rows = firstRow(p, p.groups) - firstRow(p, 0);
  const auto run = [&](int64_t tasks, TaskFunction task) {
    if (rows * p.n * p.k >= kSerialWork) return threads_.parallelFor(tasks, task);
    for (int64_t i = 0; i < tasks; ++i) task(i, 0);
  };

  const int64_t columns = blockColumns(p, rows, threads_.threads());
  const int64_t perBlock = kernels.packedSize(p.k, std::min(columns, p.n));
  const int64_t perPass = std::max<int64_t>(1, kPassFloats / perBlock);
  const int64_t blockOfRows =
      blockRows(rows, std::min<int64_t>((p.n + columns - 1) / columns, perPass), threads_.threads());
  const auto pack = [&](const ColumnBlock& block, int64_t first, int64_t count, float* packed) {
    kernels.packWeight(p.weight.data + block.group * p.n * p.k, p.k, p.n, p.transposed, block.first + first, count,
                       packed + first * p.k);
  };

  std::vector<ColumnBlock> all;
  int64_t ahead = 0;
  for (int64_t group = 0; group < p.groups; ++group) {
    const int64_t groupRows = firstRow(p, group + 1) - firstRow(p, group);
    if (groupRows == 0) continue;
    const bool readable = !p.transposed && p.n % kernels.panelColumns == 0;
    const Packing packing = groupRows > blockOfRows ? Packing::ahead : readable ? Packing::none : Packing::inTask;
    for (int64_t first = 0; first < p.n; first += columns) {
      all.push_back({group, first, std::min(columns, p.n - first), packing, nullptr});
      ahead += packing == Packing::ahead;
    }
  }
  float* packed = shared_.take<float>(perBlock * std::min(perPass, ahead));

  std::vector<RowBlock> tasks;
  std::vector<const ColumnBlock*> toPack;
  for (size_t begin = 0; begin < all.size();) {
    tasks.clear();
    toPack.clear();
    size_t end = begin;
    for (; end < all.size(); ++end) {
      ColumnBlock& block = all[end];
      if (block.packing == Packing::ahead) {
        if (static_cast<int64_t>(toPack.size()) == perPass) break;
        block.packed = packed + perBlock * static_cast<int64_t>(toPack.size());
        toPack.push_back(&block);
      }
      const int64_t last = firstRow(p, block.group + 1);
      for (int64_t first = firstRow(p, block.group); first < last; first += blockOfRows) {
        tasks.push_back({&block, first, std::min(blockOfRows, last - first)});
      }
    }
    const int64_t parts = columns / kPackColumns;
    run(static_cast<int64_t>(toPack.size()) * parts, [&](int64_t task, int) {
      const ColumnBlock& block = *toPack[static_cast<size_t>(task / parts)];
      const int64_t skip = task % parts * kPackColumns;
      if (skip < block.columns) pack(block, skip, std::min(kPackColumns, block.columns - skip), block.packed);
    });
    run(static_cast<int64_t>(tasks.size()), [&](int64_t task, int thread) {
      const RowBlock& rowBlock = tasks[static_cast<size_t>(task)];
      const ColumnBlock& block = *rowBlock.columnBlock;
      const int64_t partialSize = kernels.productScratch(rowBlock.rows, block.columns);
      const bool packs = block.packing == Packing::inTask;
      float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(partialSize + (packs ? perBlock : 0));
      float* own = packs ? scratch + partialSize : block.packed;
      if (packs) pack(block, 0, block.columns, own);
      kernels.product(blockOf(p, block, rowBlock, own, scratch));
    });
    begin = end;
  }
}

}  // namespace dp_moe
