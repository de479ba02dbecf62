#pragma once

#include "group_walk.h"
#include "kernel.h"
#include "real.h"
#include "unroll.h"
#include "weight_gradient.h"

// What the float32 and the bfloat16 kernels of weightGradient share: which sum a block makes next and where it goes.

namespace dp_moe {

/// Rows firstRow and columns firstColumn on of a group's [p, d], summed over `count` entries of the group's list of
/// rows.
struct GradientTile {
  int32_t group;  // -1: there are no more
  int32_t count;
  int64_t list;  // the first entry
  int64_t firstRow;
  int64_t firstColumn;
  float* sums;     // [p, d]
  bool isPartial;  // sums is overwritten, not added to
};

/// The tile of this number, for all threads of the block. Its barrier also ends the block's work on the tile before.
template <int tileRows, int tileColumns>
DEVICE GradientTile nextTile(const WeightGradientKernelParams& p, GroupWalk& walk, int32_t number) {
  SHARED(int32_t, found, 2);
  const auto rowTiles = static_cast<int32_t>((p.p + tileRows - 1) / tileRows);
  const auto columnTiles = static_cast<int32_t>((p.d + tileColumns - 1) / tileColumns);
  const int32_t tiles = rowTiles * columnTiles;
  if (threadIdx.x < kWarp) {
    const GroupPlace place = walk.find(number / tiles, p.groups, [&](int32_t group) {
      return (p.groupRows[2 * group + 1] + p.chunkRows - 1) / p.chunkRows;
    });
    if (threadIdx.x == 0) {
      found[0] = place.group;
      found[1] = place.piece;
    }
  }
  __syncthreads();
  GradientTile tile = {};
  tile.group = found[0];
  if (tile.group < 0) return tile;
  const int32_t chunk = found[1], start = p.groupRows[2 * tile.group], length = p.groupRows[2 * tile.group + 1];
  const int32_t first = chunk * p.chunkRows;
  const TilePlace place = tilePlace(number % tiles, rowTiles, columnTiles);
  tile.count = min(p.chunkRows, length - first);
  tile.list = start + static_cast<int64_t>(first);
  tile.firstRow = static_cast<int64_t>(place.row) * tileRows;
  tile.firstColumn = static_cast<int64_t>(place.column) * tileColumns;
  tile.isPartial = chunk > 0;
  tile.sums =
      chunk > 0 ? p.partials + (start / p.chunkRows + chunk - 1) * p.p * p.d : p.gradient + tile.group * p.p * p.d;
  return tile;
}

/// n neighbouring sums of a row, of which those inside [p, d] are stored or added. `packed`: n divides d, and aligned.
template <int n>
DEVICE void writeSums(const WeightGradientKernelParams& p, const GradientTile& tile, int row, int column,
                      Pack<float, n> values, bool packed) {
  const int64_t r = tile.firstRow + row, c = tile.firstColumn + column;
  if (r >= p.p || c >= p.d) return;
  float* to = tile.sums + r * p.d + c;
  if (packed) {
    if (!tile.isPartial) {
      const auto old = loadPack<float, n>(to);
      UNROLL for (int i = 0; i < n; ++i) values.value[i] += old.value[i];
    }
    storePack<float, n>(to, values);
  } else {
    UNROLL for (int i = 0; i < n; ++i) {
      if (c + i < p.d) to[i] = tile.isPartial ? values.value[i] : to[i] + values.value[i];
    }
  }
}

}  // namespace dp_moe
