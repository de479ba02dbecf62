#include <algorithm>
#include <vector>

#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

// The weight is packed once per call, in passes of a bounded size, and shared by all threads; the rows of y are cut
// into blocks. How they are cut is a matter of speed only: no element of y depends on it.

namespace dp_moe {

namespace {

constexpr const char* kOp = "matrixMultiply";
constexpr int64_t kBlockColumns = 256;
constexpr int64_t kPackColumns = 64;
constexpr int64_t kMostBlockRows = 96;
constexpr int64_t kFewestBlockRows = 24;
constexpr int64_t kPassFloats = int64_t{1} << 21;  // 8 MiB of packed weight at a time
constexpr int64_t kSerialWork = 1 << 17;           // multiply-adds below which waking threads costs more

struct ColumnBlock {
  int64_t group;
  int64_t first;
  int64_t columns;
  float* packed;
};

struct RowBlock {
  int64_t columnBlock;
  int64_t first;
  int64_t rows;
};

void check(const MatrixMultiplyParams& p) {
  checkThat(p.k > 0 && p.n > 0 && p.groups > 0, kOp, "k, n and groups to be at least 1");
  checkColumns(p.x, p.k, kOp, "x");
  checkSize(p.weight, p.groups * p.n * p.k, kOp, "weight");
  checkSize(p.y, p.rows * p.n, kOp, "y");
  checkOptionalSize(p.rowScale, p.rows, kOp, "rowScale");
  checkOptionalSize(p.bias, p.groups * p.n, kOp, "bias");
  checkOptionalSize(p.preActivation, p.rows * p.n, kOp, "preActivation");
  int64_t rows = p.rows;
  if (p.groupOffsets.data != nullptr) {
    checkOffsets(p.groupOffsets, p.groups * p.groupStride, p.rows, kOp, "groupOffsets");
    rows = p.groupOffsets.data[p.groups * p.groupStride];
  } else {
    checkThat(p.groups == 1, kOp, "groupOffsets where there are several groups");
  }
  if (p.xRows.data != nullptr) {
    checkSize(p.xRows, p.rows, kOp, "xRows");
    checkIndices(p.xRows, rows, 0, p.x.size / p.k, kOp, "xRows");
  } else {
    checkSize(p.x, p.rows * p.k, kOp, "x");
  }
}

int64_t firstRow(const MatrixMultiplyParams& p, int64_t group) {
  if (p.groupOffsets.data == nullptr) return group == 0 ? 0 : p.rows;
  return p.groupOffsets.data[group * p.groupStride];
}

ProductBlock blockOf(const MatrixMultiplyParams& p, const ColumnBlock& columns, const RowBlock& rows, float* partial) {
  const int64_t corner = rows.first * p.n + columns.first;
  return {
      .x = p.xRows.data == nullptr ? p.x.data + rows.first * p.k : p.x.data,
      .xRows = p.xRows.data == nullptr ? nullptr : p.xRows.data + rows.first,
      .rowScale = p.rowScale.data == nullptr ? nullptr : p.rowScale.data + rows.first,
      .packed = columns.packed,
      .bias = p.bias.data == nullptr ? nullptr : p.bias.data + columns.group * p.n + columns.first,
      .y = p.y.data + corner,
      .preActivation = p.preActivation.data == nullptr ? nullptr : p.preActivation.data + corner,
      .partial = partial,
      .rows = rows.rows,
      .columns = columns.columns,
      .k = p.k,
      .n = p.n,
      .accumulate = p.accumulate,
      .activation = p.activation,
  };
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

  std::vector<ColumnBlock> all;
  for (int64_t group = 0; group < p.groups; ++group) {
    if (firstRow(p, group) == firstRow(p, group + 1)) continue;
    for (int64_t first = 0; first < p.n; first += kBlockColumns) {
      all.push_back({group, first, std::min(kBlockColumns, p.n - first), nullptr});
    }
  }
  const int64_t perBlock = kernels.packedSize(p.k, std::min(kBlockColumns, p.n));
  const int64_t perPass = std::max<int64_t>(1, kPassFloats / perBlock);
  const int64_t blockOfRows =
      blockRows(rows, std::min<int64_t>((p.n + kBlockColumns - 1) / kBlockColumns, perPass), threads_.threads());
  float* packed = shared_.take<float>(perBlock * std::min<int64_t>(perPass, static_cast<int64_t>(all.size())));

  std::vector<RowBlock> tasks;
  for (size_t begin = 0; begin < all.size(); begin += static_cast<size_t>(perPass)) {
    const size_t end = std::min(all.size(), begin + static_cast<size_t>(perPass));
    const std::vector<ColumnBlock>::iterator blocks = all.begin() + static_cast<int64_t>(begin);
    tasks.clear();
    for (size_t i = begin; i < end; ++i) {
      all[i].packed = packed + perBlock * static_cast<int64_t>(i - begin);
      const int64_t last = firstRow(p, all[i].group + 1);
      for (int64_t first = firstRow(p, all[i].group); first < last; first += blockOfRows) {
        tasks.push_back({static_cast<int64_t>(i - begin), first, std::min(blockOfRows, last - first)});
      }
    }
    constexpr int64_t parts = kBlockColumns / kPackColumns;
    run(static_cast<int64_t>(end - begin) * parts, [&](int64_t task, int) {
      const ColumnBlock& block = blocks[task / parts];
      const int64_t skip = task % parts * kPackColumns;
      if (skip >= block.columns) return;
      kernels.packWeight(p.weight.data + block.group * p.n * p.k, p.k, p.n, p.transposed, block.first + skip,
                         std::min(kPackColumns, block.columns - skip), block.packed + skip * p.k);
    });
    run(static_cast<int64_t>(tasks.size()), [&](int64_t task, int thread) {
      const RowBlock& rowBlock = tasks[static_cast<size_t>(task)];
      const ColumnBlock& columnBlock = blocks[rowBlock.columnBlock];
      float* partial = threadScratch_[static_cast<size_t>(thread)].take<float>(
          kernels.productScratch(rowBlock.rows, columnBlock.columns));
      kernels.product(blockOf(p, columnBlock, rowBlock, partial));
    });
  }
}

}  // namespace dp_moe
