#include <algorithm>
#include <vector>

#include "cpu_backend.h"
#include "kept_rows.h"
#include "matrix_checks.h"
#include "outer_sums.h"
#include "ranges.h"
#include "segment_tiles.h"

// Threads share the elements of the gradients; each sums its own over all rows, in order.

namespace dp_moe {

namespace {

constexpr int64_t kTileRows = 32;

float factorOf(const WeightGradientParams& p, int64_t segment) {
  return p.factor.data == nullptr ? 1.0f : p.factor.data[segment % p.units];
}

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
  if (p.tileOf.data != nullptr)
    checkIndices(p.tileOf, p.segments, kTileOfRows, p.tiles.size / (p.p * p.d), op, "tileOf");
}

/// The segments of a group that are tiles of rows, each with its factor.
struct TilesOfRows {
  int64_t group;
  std::vector<int64_t> segments;
};

std::vector<TilesOfRows> tilesOfRows(const WeightGradientParams& p) {
  std::vector<TilesOfRows> groups;
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    if (p.tileOf.data[segment] != kTileOfRows || factorOf(p, segment) == 0.0f) continue;
    const int64_t group = segment / p.units;
    if (groups.empty() || groups.back().group != group) groups.push_back({group, {}});
    groups.back().segments.push_back(segment);
  }
  return groups;
}

std::vector<GroupTiles> tilesOfGroups(const WeightGradientParams& p) {
  std::vector<GroupTiles> tiles(static_cast<size_t>(p.segments / p.units));
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    const float factor = factorOf(p, segment);
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
      keptRows({p.segmentOffsets, p.factor, p.xRows.data, p.tileOf.data, p.rows, p.segments, p.units}, shared_);
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

  const std::vector<TilesOfRows> alone = tilesOfRows(p);
  const SegmentTiles made(p, kernels_);
  threads_.parallelFor(static_cast<int64_t>(alone.size()) * made.count(), [&](int64_t task, int thread) {
    const TilesOfRows& rows = alone[static_cast<size_t>(task / made.count())];
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(made.scratchSize());
    for (const int64_t segment : rows.segments) {
      const SegmentTiles::Block block = made.make(segment, task % made.count(), nullptr, scratch);
      for (int64_t row = 0; row < block.rows; ++row) {
        kernels_.norms.addScaled(p.gradient.data + (rows.group * p.p + block.row + row) * p.d + block.column,
                                 block.values + row * block.stride, factorOf(p, segment), block.columns);
      }
    }
  });
}

void CpuBackend::biasGradient(const BiasGradientParams& p) {
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.segments, p.rows, "biasGradient", "segmentOffsets");
  std::vector<RowSum> sums;
  std::vector<int64_t> first = {0};  // of each group's sums
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    const float factor = p.factor.data == nullptr ? 1.0f : p.factor.data[segment % p.units];
    const int64_t row = p.segmentOffsets.data[segment], end = p.segmentOffsets.data[segment + 1];
    if (factor != 0.0f && row < end) sums.push_back({row, end, factor});
    if ((segment + 1) % p.units == 0) first.push_back(static_cast<int64_t>(sums.size()));
  }
  constexpr int64_t columns = 128;
  const int64_t blocks = (p.p + columns - 1) / columns;
  threads_.parallelFor(p.segments / p.units * blocks, [&](int64_t task, int) {
    const auto group = static_cast<size_t>(task / blocks);
    const int64_t column = task % blocks * columns, count = first[group + 1] - first[group];
    if (count == 0) return;
    kernels_.norms.addRowSums(p.gradient.data + task / blocks * p.p + column, p.dy.data + column, nullptr,
                              sums.data() + first[group], count, std::min(columns, p.p - column), p.p);
  });
}

}  // namespace dp_moe
