#pragma once

#include <cstdint>

#include "attention.h"
#include "kernel.h"
#include "real.h"
#include "unit_rows.h"
#include "unroll.h"

// What the forward and backward attention kernels share: which tile a block has, tiles in shared memory, who sees whom.

namespace dp_moe::attention {

constexpr float kInfinity = __builtin_huge_valf();

/// One unit's rows. Query i is at key position i + shift.
struct Extent {
  int32_t firstQuery;
  int32_t queries;
  int32_t firstKey;
  int32_t keys;
  int32_t shift;
};

template <class Params>
DEVICE Extent extentOf(const Params& p, int64_t unit) {
  const UnitRows queries = unitRows(p.offsets, unit, p.rows, p.wrongOffsets);
  const UnitRows keys = unitRows(p.keyOffsets, unit, p.keyRows, p.wrongKeyOffsets);
  const auto queryCount = static_cast<int32_t>(queries.last - queries.first);
  const auto keyCount = static_cast<int32_t>(keys.last - keys.first);
  return {static_cast<int32_t>(queries.first), queryCount, static_cast<int32_t>(keys.first), keyCount,
          keyCount - queryCount};
}

/// Every unit's offsets are looked at once: wrong ones may leave a unit without a tile.
template <class Params>
DEVICE void checkUnits(const Params& p) {
  if (blockIdx.x < p.units && blockIdx.y == 0 && threadIdx.x == 0) extentOf(p, blockIdx.x);
}

/// A unit and one of its tiles; unit -1: none.
struct Tile {
  int64_t unit;
  int32_t first;  // the tile's first row, counted from the unit's
};

/// The tile of a slot. Unit u owns the slots from offsets[u] / size + u on, at least as many as it has tiles; there are
/// rows / size + units slots in all. The warp searches together, 32 units at a time.
DEVICE Tile tileOfSlot(const int32_t* offsets, int64_t units, int64_t slot, int32_t size) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const auto firstSlot = [&](int64_t unit) { return offsets[unit] / size + unit; };
  int64_t low = 0;
  int64_t count = units;
  bool found = false;
  while (count > 1 || !found) {
    const int64_t step = (count + kWarp - 1) / kWarp;
    const int64_t probe = low + lane * step;
    const uint32_t votes = __ballot_sync(kFullMask, lane * step < count && firstSlot(probe) <= slot);
    if (votes == 0) return {-1, 0};
    const int64_t passed = (__popc(votes) - 1) * step;
    low += passed;
    count = count - passed < step ? count - passed : step;
    found = true;
  }
  const int64_t first = (slot - firstSlot(low)) * size;
  if (first >= offsets[low + 1] - offsets[low]) return {-1, 0};
  return {low, static_cast<int32_t>(first)};
}

/// Starts copying `valid` rows of headSize elements, `step` apart in global memory, into a tile of `rows` rows of
/// `head` elements with zeros elsewhere. It is there after waitAsync and a barrier.
template <class T, int rows, int head, int threads>
DEVICE void loadTile(T* tile, const T* from, int64_t step, int valid, int headSize, bool packed) {
  constexpr int kElements = kPack<T>;
  constexpr int kPerRow = head / kElements;
  constexpr int kRowsAtOnce = threads / kPerRow;
  static_assert(rows % kRowsAtOnce == 0);
  const int thread = static_cast<int>(threadIdx.x);
  if (packed) {
    const int column = thread % kPerRow * kElements;
    const int firstRow = thread / kPerRow;
    T* to = tile + firstRow * kStride<T, head> + column;
    const T* at = from + firstRow * step + column;
    UNROLL_BY(1) for (int row = 0; row < rows; row += kRowsAtOnce) {
      const bool exists = firstRow + row < valid && column < headSize;
      copyAsync16(to + row * kStride<T, head>, exists ? at + row * step : from, exists ? 16 : 0);
    }
  } else {
    for (int row = thread / kWarp; row < rows; row += threads / kWarp) {
      for (int column = thread % kWarp; column < head; column += kWarp) {
        const bool exists = row < valid && column < headSize;
        tile[row * kStride<T, head> + column] = exists ? from[row * step + column] : fromFloat<T>(0.0f);
      }
    }
  }
}

/// The biases a pair of tiles needs: window[key - query + queries - 1] for key and query counted in their tiles, where
/// `distance` is the first key's position less the first query's.
template <class Params>
DEVICE void loadBias(float* window, const Params& p, int64_t head, int queries, int keys, int64_t distance,
                     int threads) {
  for (int i = static_cast<int>(threadIdx.x); i < queries + keys - 1; i += threads) {
    int64_t row = distance + i - (queries - 1);
    row = row < -(p.span - 1) ? -(p.span - 1) : row > p.span - 1 ? p.span - 1 : row;
    window[i] = p.bias[(row + p.span - 1) * p.heads + head];
  }
}

template <int count>
DEVICE void clear(float (&values)[count][4]) {
  UNROLL for (int j = 0; j < count; ++j) { UNROLL for (int n = 0; n < 4; ++n) values[j][n] = 0; }
}

template <int columns>
DEVICE void scaleScores(float (&scores)[columns / 8][4], float scale) {
  UNROLL for (int j = 0; j < columns / 8; ++j) { UNROLL for (int n = 0; n < 4; ++n) scores[j][n] *= scale; }
}

/// scores += window of column 0 of row g, `step` per column, -8 `step` for row g + 8.
template <int columns, int step>
DEVICE void addBias(float (&scores)[columns / 8][4], const float* window) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  UNROLL for (int j = 0; j < columns / 8; ++j) {
    UNROLL for (int n = 0; n < 4; ++n) scores[j][n] += window[step * (j * 8 + lane % 4 * 2 + n % 2 - n / 2 * 8)];
  }
}

/// Scores outside columns first .. end - 1 become -infinity; row g + 8 has its own first and end.
struct Visible {
  int first[2];
  int end[2];
};
template <int columns>
DEVICE void hideScores(float (&scores)[columns / 8][4], const Visible& visible) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  UNROLL for (int j = 0; j < columns / 8; ++j) {
    UNROLL for (int n = 0; n < 4; ++n) {
      const int column = j * 8 + lane % 4 * 2 + n % 2;
      if (column < visible.first[n / 2] || column >= visible.end[n / 2]) scores[j][n] = -kInfinity;
    }
  }
}

/// The keys of a tile that queries g and g + 8 see: all up to the unit's last or, if causal, to their own position, all
/// counted from the tile's first key.
DEVICE Visible visibleKeys(int keys, bool causal, int position) {
  return {{0, 0}, {causal ? min(keys, position + 1) : keys, causal ? min(keys, position + 9) : keys}};
}

/// Writes 16 rows of sums (warp_product.h) times their row's scale: `valid` rows, columns below headSize.
template <class T, int columns>
DEVICE void storeRows(T* to, int64_t step, const float (&sums)[columns / 8][4], const float (&scale)[2], int valid,
                      int headSize, bool packed) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  UNROLL for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8;
    if (row >= valid) continue;
    UNROLL for (int j = 0; j < columns / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      const float left = sums[j][half * 2] * scale[half];
      const float right = sums[j][half * 2 + 1] * scale[half];
      T* at = to + row * step + column;
      if (packed) {
        if (column < headSize) storeFloats<T, 2>(at, {left, right});
      } else {
        if (column < headSize) at[0] = fromFloat<T>(left);
        if (column + 1 < headSize) at[1] = fromFloat<T>(right);
      }
    }
  }
}

}  // namespace dp_moe::attention
