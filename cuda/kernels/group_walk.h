#pragma once

#include <cstdint>

#include "kernel.h"

// A grouped job is cut into pieces: some of group 0, then some of group 1, ... How many each group has is known on the
// device only, so blocks that stay take pieces by number and find out here which those are.

namespace dp_moe {

/// A piece's group (-1: there is no such piece), its number in it, and how many pieces the group has.
struct GroupPlace {
  int32_t group;
  int32_t piece;
  int32_t pieces;
};

/// Looks for pieces in rising order. Used by all threads of one warp.
class GroupWalk {
 public:
  template <class PiecesOf>
  DEVICE GroupPlace find(int32_t target, int32_t groups, PiecesOf piecesOf) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    for (; first_ < groups; first_ += kWarp) {
      const int32_t pieces = first_ + lane < groups ? piecesOf(first_ + lane) : 0;
      int32_t end = pieces;  // of this lane's group, counted from before_
      for (int distance = 1; distance < kWarp; distance *= 2) {
        const int32_t other = __shfl_up_sync(kFullMask, end, distance);
        if (lane >= distance) end += other;
      }
      const int groupsBefore = __popc(__ballot_sync(kFullMask, before_ + end <= target));
      if (groupsBefore < kWarp) {
        const int32_t found = __shfl_sync(kFullMask, pieces, groupsBefore);
        const int32_t start = before_ + __shfl_sync(kFullMask, end, groupsBefore) - found;
        return {first_ + groupsBefore, target - start, found};
      }
      before_ += __shfl_sync(kFullMask, end, kWarp - 1);
    }
    return {-1, 0, 0};
  }

 private:
  int32_t first_ = 0;   // of the 32 groups under the lanes
  int32_t before_ = 0;  // pieces of the groups before them
};

/// A tile's place in a matrix of tiles.
struct TilePlace {
  int32_t row;
  int32_t column;
};

/// Tiles are numbered down panels of 8 rows: those made at the same time share rows and columns in the L2 cache.
DEVICE TilePlace tilePlace(int32_t number, int32_t rows, int32_t columns) {
  constexpr int32_t panelRows = 8;
  const int32_t first = number / (panelRows * columns) * panelRows;
  const int32_t height = min(panelRows, rows - first);
  const int32_t inPanel = number - first * columns;
  return {first + inPanel % height, inPanel / height};
}

}  // namespace dp_moe
