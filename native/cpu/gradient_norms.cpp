#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu_backend.h"
#include "norm_checks.h"
#include "ranges.h"
#include "segment_tiles.h"

// A segment's norm is a number of its own; the numbers are added to the units afterwards, in segment order, so neither
// the threads nor other units have a say in a sum.

namespace dp_moe {

namespace {

constexpr int64_t kTaskWork = 1 << 18;  // multiply-adds that make a task worth handing out
constexpr double kGuard = 1e-3;         // error bound allowed in a Gram norm, relative to the norm
constexpr double kNegligible = 1e-60;   // a bound that no clipping threshold can tell from 0

int64_t segmentRows(const Input<int32_t>& offsets, int64_t segment) {
  return offsets.data[segment + 1] - offsets.data[segment];
}

/// n^2 >= 20 h, h = d p / (d + p), in whole numbers.
bool wantsTile(int64_t n, int64_t d, int64_t p) { return n * n * (d + p) >= 20 * d * p; }

void check(const SegmentGradientNormsParams& p) {
  constexpr const char* op = "segmentGradientNorms";
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.segments, p.rows, op, "segmentOffsets");
  if (p.xRows.data == nullptr) return;
  checkIndices(p.xRows, p.segmentOffsets.data[p.segments], 0, p.x.size / p.d, op, "xRows");
}

/// Consecutive segments that together make a task.
struct SegmentRange {
  int64_t begin;
  int64_t end;
};

template <class Cost>
std::vector<SegmentRange> segmentRanges(int64_t segments, Cost cost) {
  std::vector<SegmentRange> ranges;
  int64_t begin = 0, work = 0;
  for (int64_t segment = 0; segment < segments; ++segment) {
    work += cost(segment);
    if (work >= kTaskWork || segment + 1 == segments) {
      ranges.push_back({begin, segment + 1});
      begin = segment + 1;
      work = 0;
    }
  }
  return ranges;
}

/// The Gram form's upper bound, or the tile form where the Gram form may have lost too many digits: the rows of such a
/// segment cancel, and kTileOfRows has them added up by themselves.
double shortSegmentNorm(const SegmentGradientNormsParams& p, const KernelTable& kernels, const SegmentTiles& tiles,
                        int64_t segment, Scratch& scratch) {
  const int64_t first = p.segmentOffsets.data[segment];
  const SegmentRows rows{
      .dy = p.dy.data + first * p.p,
      .x = p.xRows.data == nullptr ? p.x.data + first * p.d : p.x.data,
      .xRows = p.xRows.data == nullptr ? nullptr : p.xRows.data + first,
      .count = segmentRows(p.segmentOffsets, segment),
      .p = p.p,
      .d = p.d,
  };
  const BoundedSum gram = kernels.norms.gram(rows, scratch.take<float>(kernels.norms.gramScratch(rows.count)));
  if (!(gram.bound > kNegligible)) return gram.value;
  // The true norm is at least value - bound: a bound of a thousandth of that is at most two thousandths too much.
  if (!std::isfinite(gram.value) || gram.bound <= kGuard * (gram.value - gram.bound)) return gram.value + gram.bound;
  float* memory = scratch.take<float>(tiles.scratchSize());
  double sum = 0;
  for (int64_t block = 0; block < tiles.count(); ++block) sum += tiles.norm(segment, block, nullptr, memory);
  if (p.tileOf.data != nullptr) p.tileOf.data[segment] = kTileOfRows;
  return sum;
}

/// Gives the long segments their slots, in segment order.
std::vector<int64_t> longSegments(const SegmentGradientNormsParams& p) {
  std::vector<int64_t> segments;
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    const bool tile = wantsTile(segmentRows(p.segmentOffsets, segment), p.d, p.p);
    if (p.tileOf.data != nullptr) p.tileOf.data[segment] = tile ? static_cast<int32_t>(segments.size()) : -1;
    if (tile) segments.push_back(segment);
  }
  const auto count = static_cast<int64_t>(segments.size());
  if (p.tileOf.data != nullptr && count > p.maxTiles) throw tooManyTiles(p.maxTiles, count);
  return segments;
}

}  // namespace

void CpuBackend::segmentGradientNorms(const SegmentGradientNormsParams& p) {
  check(p);
  const std::vector<int64_t> tiled = longSegments(p);
  const SegmentTiles tiles(p, kernels_);
  const int64_t blocks = tiles.count();
  double* values = shared_.take<double>(p.segments + static_cast<int64_t>(tiled.size()) * blocks);
  double* blockValues = values + p.segments;

  threads_.parallelFor(static_cast<int64_t>(tiled.size()) * blocks, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(tiles.scratchSize());
    float* tile = p.tileOf.data == nullptr ? nullptr : p.tiles.data + task / blocks * p.p * p.d;
    blockValues[task] = tiles.norm(tiled[static_cast<size_t>(task / blocks)], task % blocks, tile, scratch);
  });

  const auto cost = [&](int64_t segment) {
    const int64_t n = segmentRows(p.segmentOffsets, segment);
    return wantsTile(n, p.d, p.p) ? 0 : n * (n + 4) * (p.d + p.p) / 2;
  };
  const std::vector<SegmentRange> ranges = segmentRanges(p.segments, cost);
  threads_.parallelFor(static_cast<int64_t>(ranges.size()), [&](int64_t task, int thread) {
    const SegmentRange& range = ranges[static_cast<size_t>(task)];
    for (int64_t segment = range.begin; segment < range.end; ++segment) {
      const int64_t n = segmentRows(p.segmentOffsets, segment);
      if (n == 0) values[segment] = 0;
      if (n == 0 || wantsTile(n, p.d, p.p)) continue;
      values[segment] = shortSegmentNorm(p, kernels_, tiles, segment, threadScratch_[static_cast<size_t>(thread)]);
    }
  });

  for (size_t i = 0; i < tiled.size(); ++i) {
    double sum = 0;
    for (int64_t block = 0; block < blocks; ++block) sum += blockValues[static_cast<int64_t>(i) * blocks + block];
    values[tiled[i]] = sum;
  }
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    p.normSquared.data[segment % p.units] += values[segment];
  }
}

void CpuBackend::segmentBiasNorms(const SegmentBiasNormsParams& p) {
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.segments, p.rows, "segmentBiasNorms", "segmentOffsets");
  double* values = shared_.take<double>(p.segments);
  const auto cost = [&](int64_t segment) { return 8 * segmentRows(p.segmentOffsets, segment) * p.p; };
  const std::vector<SegmentRange> ranges = segmentRanges(p.segments, cost);
  threads_.parallelFor(static_cast<int64_t>(ranges.size()), [&](int64_t task, int) {
    const SegmentRange& range = ranges[static_cast<size_t>(task)];
    for (int64_t segment = range.begin; segment < range.end; ++segment) {
      values[segment] = kernels_.norms.columnSumNorm(p.dy.data + p.segmentOffsets.data[segment] * p.p,
                                                     segmentRows(p.segmentOffsets, segment), p.p);
    }
  });
  for (int64_t segment = 0; segment < p.segments; ++segment) {
    p.normSquared.data[segment % p.units] += values[segment];
  }
}

}  // namespace dp_moe
