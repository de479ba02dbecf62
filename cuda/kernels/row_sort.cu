#include "reductions.h"
#include "row_sort.h"
#include "unit_rows.h"

namespace dp_moe::sorting {

constexpr int kWarps = kSortThreads / kWarp;
constexpr int kRowsOfWarp = kSortRows / kWarps;

/// The unit that a row lies in, -1 before the first, `units` past the last.
DEVICE int32_t unitOfRow(const SortKeysParams& p, int64_t row) {
  if (row < p.offsets[0]) return -1;
  if (row >= p.offsets[p.units]) return static_cast<int32_t>(p.units);
  int64_t low = 0, high = p.units;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (p.offsets[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return static_cast<int32_t>(low);
}

/// A thread per row; those past the rows look at the units' offsets with them.
KERNEL(sortKeys, SortKeysParams) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kSortThreads + threadIdx.x;
  if (row < p.units) unitRows(p.offsets, row, p.rows, p.wrongOffsets);
  if (row >= p.rows) return;
  int32_t unit = unitOfRow(p, row);
  uint32_t key = p.last;
  if (unit >= 0 && unit < p.units) {
    const int32_t id = p.ids[row];
    const bool right = p.vocabulary == 0 || (id >= 0 && id < p.vocabulary);
    if (!right) report(p.wrongId, id);
    if (!right || (p.factor != nullptr && p.factor[unit] == 0)) {
      unit = -1;
    } else {
      key = static_cast<uint32_t>(id);
    }
  }
  p.keys[row] = key;
  p.rowOf[row] = static_cast<int32_t>(row);
  p.unitOf[row] = unit;
}

/// For the rows of the warp, 32 at a time: f(row, digit, how many rows of its 32 have the digit before it, all of
/// them).
template <class F>
DEVICE void forDigits(const SortPassParams& p, F&& f) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSortRows + warp * kRowsOfWarp;
  for (int64_t start = first; start < first + kRowsOfWarp && start < p.rows; start += kWarp) {
    const int64_t row = start + lane;
    const bool exists = row < p.rows;
    const uint32_t digit = exists ? p.keysFrom[row] >> p.shift & (kDigits - 1) : 0;
    uint32_t same = __ballot_sync(kFullMask, exists);
    for (int bit = 0; bit < 8; ++bit) {
      const bool set = (digit >> bit & 1) != 0;
      const uint32_t votes = __ballot_sync(kFullMask, set);
      same &= set ? votes : ~votes;
    }
    if (!exists) same = 0;
    f(row, digit, __popc(same & ((1u << lane) - 1)), __popc(same));
  }
}

KERNEL(countDigits, SortPassParams) {
  SHARED(int32_t, counts, kDigits);
  counts[threadIdx.x] = 0;
  __syncthreads();
  forDigits(p, [&](int64_t, uint32_t digit, int before, int all) {
    if (before == 0 && all > 0) atomicAdd(&counts[digit], all);
  });
  __syncthreads();
  p.counts[static_cast<int64_t>(threadIdx.x) * p.blocks + blockIdx.x] = counts[threadIdx.x];
}

/// counts becomes, for each digit and block, where its first row goes. One block.
KERNEL(placeDigits, SortPassParams) {
  SHARED(int32_t, parts, kPlaceThreads / kWarp);
  const int64_t size = kDigits * p.blocks;
  const int64_t perThread = (size + kPlaceThreads - 1) / kPlaceThreads;
  const int64_t first = threadIdx.x * perThread, last = min(first + perThread, size);
  int32_t sum = 0;
  for (int64_t i = first; i < last; ++i) sum += p.counts[i];
  int32_t place = blockScan(sum, parts).before;
  for (int64_t i = first; i < last; ++i) {
    const int32_t count = p.counts[i];
    p.counts[i] = place;
    place += count;
  }
}

KERNEL(moveRows, SortPassParams) {
  SHARED(int32_t, places, kWarps * kDigits);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int w = 0; w < kWarps; ++w) places[w * kDigits + static_cast<int>(threadIdx.x)] = 0;
  __syncthreads();
  int32_t* own = places + warp * kDigits;
  forDigits(p, [&](int64_t, uint32_t digit, int before, int all) {
    if (before == 0 && all > 0) own[digit] += all;
    __syncwarp();  // this turn's counts stand before the next turn adds to them: a vote orders lanes, not memory
  });
  __syncthreads();
  int32_t place = p.counts[static_cast<int64_t>(threadIdx.x) * p.blocks + blockIdx.x];
  for (int w = 0; w < kWarps; ++w) {
    int32_t& count = places[w * kDigits + static_cast<int>(threadIdx.x)];
    const int32_t next = place + count;
    count = place;
    place = next;
  }
  __syncthreads();
  forDigits(p, [&](int64_t row, uint32_t digit, int before, int all) {
    if (all > 0) {
      const int32_t to = own[digit] + before;
      p.keysTo[to] = p.keysFrom[row];
      p.rowsTo[to] = p.rowsFrom[row];
    }
    __syncwarp();
    if (before == 0 && all > 0) own[digit] += all;
    __syncwarp();
  });
}

}  // namespace dp_moe::sorting
