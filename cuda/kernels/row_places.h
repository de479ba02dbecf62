#pragma once

#include <cstdint>

#include "kernel.h"
#include "row_walk.h"

namespace dp_moe {

/// A thread's place: its row, the first of its elements and the distance to the next.
struct RowPlace {
  int64_t row;
  int64_t first;
  int64_t step;
};

/// n elements per access.
template <int n>
DEVICE RowPlace rowPlace(const RowWalk& walk) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t lanes = INT64_C(1) << walk.laneBits;
  return {thread >> walk.laneBits, (thread & (lanes - 1)) * n, lanes * n};
}

DEVICE bool rowExists(const RowWalk& walk, int64_t row) {
  return row < walk.rows && (walk.count == nullptr || row < *walk.count);
}

/// f(row, first element, step) for this thread's rows in [0, count) of the block's unit.
template <int n, class F>
DEVICE void forRowsOfUnit(const UnitWalk& walk, int64_t count, F&& f) {
  const int64_t lanes = INT64_C(1) << walk.laneBits;
  const int64_t rowsAtOnce = blockDim.x >> walk.laneBits;
  const int64_t first = (threadIdx.x & (lanes - 1)) * n;
  for (int64_t row = blockIdx.y * rowsAtOnce + (threadIdx.x >> walk.laneBits); row < count;
       row += gridDim.y * rowsAtOnce) {
    f(row, first, lanes * n);
  }
}

}  // namespace dp_moe
