#include <algorithm>
#include <vector>

#include "checks.h"
#include "cpu_backend.h"
#include "kept_rows.h"
#include "ranges.h"

// Threads share the elements of the gradients; each sums its own over all rows, in order.

namespace dp_moe {

namespace {

constexpr int64_t kMostBlockRows = 128;
constexpr int64_t kMostBlockColumns = 256;
constexpr int64_t kFewestBlock = 32;

struct Task {
  int64_t group;
  int64_t row;
  int64_t column;
  int64_t cost;
};

/// The tiles that one group adds, in segment order.
struct GroupTiles {
  std::vector<int64_t> slots;
  std::vector<float> scales;
};

void check(const WeightGradientParams& p) {
  constexpr const char* op = "weightGradient";
  checkThat(p.p > 0 && p.d > 0 && p.units > 0 && p.segments % p.units == 0, op,
            "p, d and units to be at least 1 and segments to be a multiple of units");
  checkSize(p.dy, p.rows * p.p, op, "dy");
  checkOffsets(p.segmentOffsets, p.segments, p.rows, op, "segmentOffsets");
  checkOptionalSize(p.factor, p.units, op, "factor");
  checkSize(p.gradient, p.segments / p.units * p.p * p.d, op, "gradient");
  if (p.xRows.data != nullptr) {
    checkColumns(p.x, p.d, op, "x");
    checkSize(p.xRows, p.rows, op, "xRows");
    checkIndices(p.xRows, p.segmentOffsets.data[p.segments], 0, p.x.size / p.d, op, "xRows");
  } else {
    checkSize(p.x, p.rows * p.d, op, "x");
  }
  if (p.tileOf.data != nullptr) {
    checkSize(p.tileOf, p.segments, op, "tileOf");
    checkColumns(p.tiles, p.p * p.d, op, "tiles");
    checkIndices(p.tileOf, p.segments, -1, p.tiles.size / (p.p * p.d), op, "tileOf");
  }
}

/// Halves the larger side of a block until there is work for every thread.
void blockSize(const WeightGradientParams& p, int64_t groups, int threads, int64_t& rows, int64_t& columns) {
  rows = std::min(kMostBlockRows, p.p);
  columns = std::min(kMostBlockColumns, p.d);
  const auto tasks = [&] { return groups * ((p.p + rows - 1) / rows) * ((p.d + columns - 1) / columns); };
  while (threads > 1 && tasks() < int64_t{4} * threads && std::max(rows, columns) > kFewestBlock) {
    if (columns >= rows) {
      columns = std::max(kFewestBlock, (columns / 2 + kFewestBlock - 1) / kFewestBlock * kFewestBlock);
    } else {
      rows = (rows + 1) / 2;
    }
  }
}

std::vector<GroupTiles> tilesOfGroups(const WeightGradientParams& p) {
  std::vector<GroupTiles> tiles(static_cast<size_t>(p.segments / p.units));
  if (p.tileOf.data == nullptr) return tiles;
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    const float factor = p.factor.data == nullptr ? 1.0f : p.factor.data[segment % p.units];
    if (p.tileOf.data[segment] < 0 || factor == 0.0f) continue;
    GroupTiles& group = tiles[static_cast<size_t>(segment / p.units)];
    group.slots.push_back(p.tileOf.data[segment]);
    group.scales.push_back(factor);
  }
  return tiles;
}

}  // namespace

void CpuBackend::weightGradient(const WeightGradientParams& p) {
  check(p);
  const MatrixKernels& kernels = kernels_.matrix;
  const int64_t groups = p.segments / p.units;
  const KeptRows kept =
      keptRows({p.segmentOffsets, p.factor, p.xRows.data, p.tileOf.data, p.rows, p.segments, p.units, true}, shared_);
  const std::vector<GroupTiles> tiles = tilesOfGroups(p);

  std::vector<int64_t> cost(static_cast<size_t>(groups));
  int64_t busy = 0;
  for (size_t group = 0; group < cost.size(); ++group) {
    cost[group] = kept.begin[group + 1] - kept.begin[group] + static_cast<int64_t>(tiles[group].slots.size());
    busy += cost[group] > 0;
  }
  int64_t blockRows = 0, blockColumns = 0;
  blockSize(p, busy, threads_.threads(), blockRows, blockColumns);
  std::vector<Task> tasks;
  for (int64_t group = 0; group < groups; ++group) {
    if (cost[static_cast<size_t>(group)] == 0) continue;
    for (int64_t row = 0; row < p.p; row += blockRows) {
      for (int64_t column = 0; column < p.d; column += blockColumns) {
        tasks.push_back({group, row, column, cost[static_cast<size_t>(group)]});
      }
    }
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });

  threads_.parallelFor(static_cast<int64_t>(tasks.size()), [&](int64_t index, int thread) {
    const Task& task = tasks[static_cast<size_t>(index)];
    const auto group = static_cast<size_t>(task.group);
    const int64_t begin = kept.begin[group];
    const int64_t corner = task.row * p.d + task.column;
    OuterBlock block{
        .dy = p.dy.data + task.row,
        .x = p.x.data + task.column,
        .dyRows = kept.dyRows + begin,
        .xRows = kept.xRows + begin,
        .scale = p.factor.data == nullptr ? nullptr : kept.scale + begin,
        .c = p.gradient.data + task.group * p.p * p.d + corner,
        .scratch = nullptr,
        .rows = kept.begin[group + 1] - begin,
        .p = std::min(blockRows, p.p - task.row),
        .d = std::min(blockColumns, p.d - task.column),
        .dyStride = p.p,
        .xStride = p.d,
        .cStride = p.d,
        .scaleDy = p.p <= p.d,
        .accumulate = true,
    };
    block.scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(kernels.outerScratch(block.p, block.d));
    if (block.rows > 0) kernels.outer(block);
    const GroupTiles& groupTiles = tiles[group];
    if (groupTiles.slots.empty()) return;
    std::vector<const float*> at;
    for (const int64_t slot : groupTiles.slots) at.push_back(p.tiles.data + slot * p.p * p.d + corner);
    kernels.addTiles(block.c, at.data(), groupTiles.scales.data(), static_cast<int64_t>(at.size()), block.p, block.d,
                     p.d);
  });
}

void CpuBackend::biasGradient(const BiasGradientParams& p) {
  constexpr const char* op = "biasGradient";
  checkThat(p.p > 0 && p.units > 0 && p.segments % p.units == 0, op,
            "p and units to be at least 1 and segments to be a multiple of units");
  checkSize(p.dy, p.rows * p.p, op, "dy");
  checkOffsets(p.segmentOffsets, p.segments, p.rows, op, "segmentOffsets");
  checkOptionalSize(p.factor, p.units, op, "factor");
  checkSize(p.gradient, p.segments / p.units * p.p, op, "gradient");
  const KeptRows kept =
      keptRows({p.segmentOffsets, p.factor, nullptr, nullptr, p.rows, p.segments, p.units, false}, shared_);
  constexpr int64_t columns = 128;
  const int64_t blocks = (p.p + columns - 1) / columns;
  threads_.parallelFor(p.segments / p.units * blocks, [&](int64_t task, int) {
    const int64_t group = task / blocks, column = task % blocks * columns;
    const int64_t begin = kept.begin[static_cast<size_t>(group)];
    kernels_.matrix.addRows(p.gradient.data + group * p.p + column, p.dy.data + column, kept.dyRows + begin,
                            p.factor.data == nullptr ? nullptr : kept.scale + begin,
                            kept.begin[static_cast<size_t>(group) + 1] - begin, std::min(columns, p.p - column), p.p);
  });
}

}  // namespace dp_moe
