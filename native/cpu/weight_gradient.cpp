#include <algorithm>
#include <vector>

#include "cpu_backend.h"
#include "kept_rows.h"
#include "matrix_checks.h"
#include "outer_sums.h"
#include "ranges.h"

// Threads share the elements of the gradients; each sums its own over all rows, in order.

namespace dp_moe {

namespace {

constexpr int64_t kTileRows = 32;

/// The tiles that one group adds, in segment order.
struct GroupTiles {
  std::vector<int64_t> slots;
  std::vector<float> scales;
};

void check(const WeightGradientParams& p) {
  constexpr const char* op = "weightGradient";
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.segments, p.rows, op, "segmentOffsets");
  if (p.xRows.data != nullptr) {
    checkIndices(p.xRows, p.segmentOffsets.data[p.segments], 0, p.x.size / p.d, op, "xRows");
  }
  if (p.tileOf.data != nullptr) checkIndices(p.tileOf, p.segments, -1, p.tiles.size / (p.p * p.d), op, "tileOf");
}

std::vector<GroupTiles> tilesOfGroups(const WeightGradientParams& p) {
  std::vector<GroupTiles> tiles(static_cast<size_t>(p.segments / p.units));
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
  OuterSums sums(kernels, threads_, packed_, p.p, p.d);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t begin = kept.begin[static_cast<size_t>(group)];
    sums.add({
        .dy = p.dy.data,
        .x = p.x.data,
        .dyRows = kept.dyRows + begin,
        .xRows = kept.xRows + begin,
        .scale = p.factor.data == nullptr ? nullptr : kept.scale + begin,
        .c = p.gradient.data + group * p.p * p.d,
        .scratch = nullptr,
        .rows = kept.begin[static_cast<size_t>(group) + 1] - begin,
        .p = p.p,
        .d = p.d,
        .dyStride = p.p,
        .xStride = p.d,
        .cStride = p.d,
        .scaleDy = p.p <= p.d,
        .accumulate = true,
    });
  }
  sums.finish();

  if (p.tileOf.data == nullptr) return;
  const std::vector<GroupTiles> tiles = tilesOfGroups(p);
  const int64_t blocks = (p.p + kTileRows - 1) / kTileRows;
  threads_.parallelFor(groups * blocks, [&](int64_t task, int) {
    const GroupTiles& group = tiles[static_cast<size_t>(task / blocks)];
    if (group.slots.empty()) return;
    const int64_t row = task % blocks * kTileRows;
    std::vector<const float*> at;
    for (const int64_t slot : group.slots) at.push_back(p.tiles.data + (slot * p.p + row) * p.d);
    kernels.addTiles(p.gradient.data + (task / blocks * p.p + row) * p.d, at.data(), group.scales.data(),
                     static_cast<int64_t>(at.size()), std::min(kTileRows, p.p - row), p.d, p.d);
  });
}

void CpuBackend::biasGradient(const BiasGradientParams& p) {
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.segments, p.rows, "biasGradient", "segmentOffsets");
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
