#include "choice_counts.h"
#include "reductions.h"
#include "routing.h"
#include "unroll.h"

namespace dp_moe {

KERNEL(routingPlanCount, RoutingPlanKernelParams) {
  DYNAMIC_SHARED(int32_t, counts);
  const int64_t unit = blockIdx.x;
  if (unit == 0 && threadIdx.x == 0) p.segmentOffsets[0] = 0;
  if (unit >= p.units) return;
  const UnitRows rows = unitRows(p.offsets, unit, p.rows, p.wrongOffsets);
  countChoices(p.expert, rows.first * p.k, rows.last * p.k, p.experts, counts, p.wrongExpert);
  for (int64_t e = threadIdx.x; e < p.experts; e += blockDim.x) {
    p.segmentOffsets[e * p.units + unit + 1] = min(counts[e], p.capacity);
  }
}

KERNEL_BOUNDS(routingPlanScan, RoutingPlanScanKernelParams, kRoutingThreads, 1) {
  SHARED(int32_t, parts, kRoutingThreads / kWarp);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kScanTile + threadIdx.x * kScanItems;
  int32_t sums[kScanItems];
  int32_t sum = 0;
  UNROLL
  for (int i = 0; i < kScanItems; ++i) {
    sum += first + i < p.size ? p.counts[first + i] : 0;
    sums[i] = sum;
  }
  const Scan scan = blockScan(sum, parts);
  UNROLL
  for (int i = 0; i < kScanItems; ++i) {
    if (first + i < p.size) p.counts[first + i] = scan.before + sums[i];
  }
  if (threadIdx.x == 0) p.tileSums[blockIdx.x] = scan.total;
}

/// Of the tiles from the second on.
KERNEL_BOUNDS(routingPlanAddTiles, RoutingPlanScanKernelParams, kRoutingThreads, 1) {
  SHARED(int32_t, parts, kRoutingThreads / kWarp);
  const int64_t tile = static_cast<int64_t>(blockIdx.x) + 1;
  int32_t sum = 0;
  for (int64_t t = threadIdx.x; t < tile; t += kRoutingThreads) sum += p.tileSums[t];
  const int32_t before = blockSum(sum, parts);
  const int64_t end = min((tile + 1) * kScanTile, p.size);
  for (int64_t i = tile * kScanTile + threadIdx.x; i < end; i += kRoutingThreads) p.counts[i] += before;
}

namespace {

/// No pair has these places: slots past the last, and rows of no unit.
DEVICE void clearTails(const RoutingPlanKernelParams& p) {
  const int64_t pairs = p.rows * p.k;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t slots = p.segmentOffsets[p.experts * p.units];
  for (int64_t i = slots + thread; i < pairs; i += threads) p.rowOfSlot[i] = -1;
  const int64_t used = p.units > 0 ? max(p.offsets[p.units], 0) * p.k : 0;
  for (int64_t i = used + thread; i < pairs; i += threads) p.slotOf[i] = -1;
}

}  // namespace

/// Tiles of one pair per thread in order: the place of a pair is the next free one of its expert, plus the pairs of
/// that expert in the warps before, plus those in the lanes before.
KERNEL(routingPlanRank, RoutingPlanKernelParams) {
  DYNAMIC_SHARED(int32_t, shared);
  clearTails(p);
  const int64_t unit = blockIdx.x;
  if (unit >= p.units) return;
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  int32_t* next = shared;                // [experts]
  int32_t* ofWarp = shared + p.experts;  // [warps, experts]
  for (int64_t e = threadIdx.x; e < p.experts; e += blockDim.x) {
    next[e] = p.segmentOffsets[e * p.units + unit];
    for (int64_t w = 0; w < blockDim.x / kWarp; ++w) ofWarp[w * p.experts + e] = 0;
  }
  __syncthreads();
  const UnitRows rows = unitRows(p.offsets, unit, p.rows, p.wrongOffsets);
  const int64_t end = rows.last * p.k;
  for (int64_t tile = rows.first * p.k; tile < end; tile += blockDim.x) {
    const int64_t i = tile + threadIdx.x;
    int32_t e = i < end ? p.expert[i] : -1;
    if (e >= p.experts) e = -1;  // reported by routingPlanCount
    int32_t before = 0;
    int32_t count = 0;
    for (int l = 0; l < kWarp; ++l) {
      const bool same = __shfl_sync(kFullMask, e, l) == e;
      before += same && l < lane;
      count += same;
    }
    const bool first = e >= 0 && before == 0;
    if (first) atomicAdd(&ofWarp[warp * p.experts + e], count);
    __syncthreads();
    if (i < end) {
      int32_t slot = -1;
      if (e >= 0) {
        slot = next[e] + before;
        for (int w = 0; w < warp; ++w) slot += ofWarp[w * p.experts + e];
        if (slot >= p.segmentOffsets[e * p.units + unit + 1]) slot = -1;
      }
      p.slotOf[i] = slot;
      if (slot >= 0) p.rowOfSlot[slot] = static_cast<int32_t>(i / p.k);
    }
    __syncthreads();
    if (first) {
      atomicAdd(&next[e], count);
      atomicAdd(&ofWarp[warp * p.experts + e], -count);
    }
  }
}

}  // namespace dp_moe
