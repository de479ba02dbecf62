#include "reductions.h"
#include "unit_rows.h"
#include "weight_gradient.h"

// What comes before and after the sums of a weight gradient: the lists of rows that count (those of units whose factor
// is not 0, of segments without a tile), and the sums of chunks and the tiles, added in order.

namespace dp_moe {

namespace {

DEVICE float factorOf(const WeightGradientKernelParams& p, int64_t unit) {
  return p.factor != nullptr ? p.factor[unit] : 1.0f;
}

/// The tile of a segment, or kTileOfRows; -1 where it has none, and a report where there is no such tile.
DEVICE int32_t tileOf(const WeightGradientKernelParams& p, int64_t segment) {
  if (p.tileOf == nullptr) return -1;
  const int32_t tile = p.tileOf[segment];
  if (tile >= kTileOfRows && tile < p.tileCount) return tile;
  report(p.wrongTile, tile);
  return -1;
}

/// Rows of a segment, if they count.
DEVICE UnitRows keptRows(const WeightGradientKernelParams& p, int64_t segment) {
  const UnitRows rows = unitRows(p.segmentOffsets, segment, p.rows, p.wrongOffsets);
  const bool counts = factorOf(p, segment % p.units) != 0.0f && tileOf(p, segment) == -1;
  return counts ? rows : UnitRows{0, 0};
}

constexpr int kThreads = kGradientRowsThreads;

}  // namespace

/// One block per group: where in the group's list each segment's rows go, and how long the list is.
KERNEL_BOUNDS(weight_gradient_segments, WeightGradientKernelParams, kGradientRowsThreads, 4) {
  SHARED(int32_t, parts, kThreads / kWarp);
  const int64_t firstSegment = blockIdx.x * p.units;
  int32_t before = 0, tilesOfRows = 0;
  for (int64_t first = 0; first < p.units; first += kThreads) {
    const int64_t unit = first + threadIdx.x;
    if (unit < p.units && tileOf(p, firstSegment + unit) == kTileOfRows && factorOf(p, unit) != 0.0f) ++tilesOfRows;
    const UnitRows rows = unit < p.units ? keptRows(p, firstSegment + unit) : UnitRows{0, 0};
    const Scan scan = blockScan(static_cast<int32_t>(rows.last - rows.first), parts);
    if (unit < p.units) p.keptBefore[firstSegment + unit] = before + scan.before;
    before += scan.total;
    __syncthreads();  // parts is read by all
  }
  tilesOfRows = blockSum(tilesOfRows, parts);
  if (threadIdx.x == 0) {
    p.groupHasTile[blockIdx.x] = tilesOfRows;
    const int64_t start = p.segmentOffsets[firstSegment];
    const bool exists = start >= 0 && start <= p.rows;
    p.groupRows[2 * blockIdx.x] = exists ? static_cast<int32_t>(start) : 0;
    // Wrong offsets, which have been reported, could make it longer than the rows there are.
    p.groupRows[2 * blockIdx.x + 1] =
        exists ? static_cast<int32_t>(min(static_cast<int64_t>(before), p.rows - start)) : 0;
  }
}

/// Eight threads per segment write its rows into the group's list.
KERNEL_BOUNDS(weight_gradient_rows, WeightGradientKernelParams, kGradientRowsThreads, 4) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t segment = thread / kThreadsPerSegment;
  if (segment >= p.segments) return;
  const int64_t group = segment / p.units;
  const UnitRows rows = keptRows(p, segment);
  const float factor = factorOf(p, segment % p.units);
  const int32_t before = p.keptBefore[segment], length = p.groupRows[2 * group + 1];
  for (int64_t i = thread % kThreadsPerSegment; i < rows.last - rows.first; i += kThreadsPerSegment) {
    if (before + i >= length) return;
    const int64_t row = rows.first + i;
    int32_t xRow = p.xRows != nullptr ? p.xRows[row] : static_cast<int32_t>(row);
    if (xRow < 0 || xRow >= p.xCount) {
      report(p.wrongRow, xRow);
      xRow = -1;
    }
    const int64_t at = p.groupRows[2 * group] + before + i;
    p.dyRow[at] = static_cast<int32_t>(row);
    p.xRow[at] = xRow;
    p.scale[at] = factor;
  }
}

/// gradient += the sums of a group's chunks after the first, in order, then factor * tile, in order of the segments.
KERNEL_BOUNDS(weight_gradient_finish, WeightGradientKernelParams, kGradientRowsThreads, 4) {
  SHARED(int32_t, parts, kThreads / kWarp);
  SHARED(int32_t, tiles, kThreads);
  SHARED(float, factors, kThreads);
  const int64_t elements = p.p * p.d;
  const int64_t blocks = (elements + kThreads - 1) / kThreads;
  const int64_t group = blockIdx.x / blocks;
  const int64_t element = blockIdx.x % blocks * kThreads + threadIdx.x;
  const bool exists = element < elements;
  float sum = exists ? p.gradient[group * elements + element] : 0.0f;

  const int64_t firstPartial = p.groupRows[2 * group] / p.chunkRows;
  const int32_t chunks = (p.groupRows[2 * group + 1] + p.chunkRows - 1) / p.chunkRows;
  for (int32_t chunk = 1; chunk < chunks && exists; ++chunk) {
    sum += p.partials[(firstPartial + chunk - 1) * elements + element];
  }
  for (int64_t first = 0; first < p.units && p.tileOf != nullptr; first += kThreads) {
    const int64_t unit = first + threadIdx.x;
    const int32_t tile = unit < p.units ? tileOf(p, group * p.units + unit) : -1;
    const float factor = tile >= 0 ? factorOf(p, unit) : 0.0f;
    const bool counts = factor != 0.0f;
    const Scan scan = blockScan(counts ? 1 : 0, parts);
    if (counts) {
      tiles[scan.before] = tile;
      factors[scan.before] = factor;
    }
    __syncthreads();  // the list is there for all; the next scan's barrier comes after all have read it
    for (int32_t i = 0; i < scan.total && exists; ++i) {
      sum = fmaf(factors[i], p.tiles[tiles[i] * elements + element], sum);
    }
  }
  if (exists) p.gradient[group * elements + element] = sum;
}

}  // namespace dp_moe
