#pragma once

#include "activation.h"
#include "group_walk.h"
#include "kernel.h"
#include "matrix.h"
#include "real.h"
#include "unit_rows.h"
#include "unroll.h"

// What the float32 and the bfloat16 kernels of matrixMultiply share: which tile a block makes next, and what becomes of
// the tile's sums.

namespace dp_moe {

/// Columns of y from firstColumn on, rows from firstRow on, up to the group's last.
struct ProductTile {
  int32_t group;  // -1: there are no more tiles
  int64_t firstRow;
  int64_t lastRow;
  int64_t firstColumn;
};

/// Rows of a group; none, and a report, where its offsets do not rise within [0, rows].
DEVICE UnitRows rowsOfGroup(const MatrixMultiplyKernelParams& p, int32_t group) {
  if (p.groupOffsets == nullptr) return {0, p.rows};
  return rowsOfUnits(p.groupOffsets, group * p.groupStride, (group + 1) * p.groupStride, p.rows, p.wrongOffsets);
}

/// Reports offsets that do not rise within [0, rows], those between the groups' too. The grid shares the work.
DEVICE void checkOffsets(const MatrixMultiplyKernelParams& p) {
  if (p.groupOffsets == nullptr) return;
  const int64_t count = p.groups * p.groupStride, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; at <= count; at += step) {
    const int32_t before = at > 0 ? p.groupOffsets[at - 1] : 0, own = p.groupOffsets[at];
    if (own < before || own > p.rows) report(p.wrongOffsets, own);
  }
}

/// The tile of this number, for all threads of the block. Its barrier also ends the block's work on the tile before.
template <int tileRows, int tileColumns>
DEVICE ProductTile nextTile(const MatrixMultiplyKernelParams& p, GroupWalk& walk, int32_t number) {
  SHARED(int32_t, found, 3);
  if (threadIdx.x < kWarp) {
    const auto columnTiles = static_cast<int32_t>((p.n + tileColumns - 1) / tileColumns);
    const GroupPlace place = walk.find(number / columnTiles, p.groups, [&](int32_t group) {
      const UnitRows rows = rowsOfGroup(p, group);
      return static_cast<int32_t>((rows.last - rows.first + tileRows - 1) / tileRows);
    });
    if (threadIdx.x == 0) {
      found[0] = place.group;
      if (place.group >= 0) {
        const TilePlace tile = tilePlace(place.piece * columnTiles + number % columnTiles, place.pieces, columnTiles);
        found[1] = tile.row;
        found[2] = tile.column;
      }
    }
  }
  __syncthreads();
  if (found[0] < 0) return {-1, 0, 0, 0};
  const UnitRows rows = rowsOfGroup(p, found[0]);
  return {found[0], rows.first + static_cast<int64_t>(found[1]) * tileRows, rows.last,
          static_cast<int64_t>(found[2]) * tileColumns};
}

/// The row of x behind a row of y; -1, and a report, where there is none.
DEVICE int64_t sourceRow(const MatrixMultiplyKernelParams& p, int64_t row) {
  if (p.xRows == nullptr) return row;
  const int32_t source = p.xRows[row];
  if (source >= 0 && source < p.xCount) return source;
  report(p.wrongRow, source);
  return -1;
}

/// Where a sum waits in shared memory: neighbouring rows begin in different banks.
template <int tileColumns>
DEVICE int finishedAt(int row, int column) {
  return row * tileColumns + (column ^ (row & 7) * 8);
}

using EightFloats = Pack<float, 8>;

/// `count` of eight elements; `packed`: all eight, and aligned.
template <class T>
DEVICE void storeEight(T* to, const EightFloats& values, int count, bool packed) {
  if (packed) {
    storeFloats<T, 8>(to, values);
  } else {
    UNROLL for (int i = 0; i < 8; ++i) {
      if (i < count) to[i] = fromFloat<T>(values.value[i]);
    }
  }
}

template <class T>
DEVICE void addEight(EightFloats& values, const T* from, int count, bool packed) {
  if (packed) {
    const EightFloats old = loadFloats<T, 8>(from);
    UNROLL for (int i = 0; i < 8; ++i) values.value[i] += old.value[i];
  } else {
    UNROLL for (int i = 0; i < 8; ++i) {
      if (i < count) values.value[i] += toFloat(from[i]);
    }
  }
}

template <class T>
DEVICE void writeEight(const MatrixMultiplyKernelParams& p, T* y, EightFloats& values, int count) {
  if (p.accumulate) addEight(values, y, count, p.packedStores);
  storeEight(y, values, count, p.packedStores);
}

/// The sums of `rows` rows of a tile, in shared memory at finishedAt, become rows of y. T is the type of the other
/// operands.
template <class T, int rows, int tileColumns>
DEVICE void writeTile(const MatrixMultiplyKernelParams& p, const ProductTile& tile, int firstRow,
                      const float* finished) {
  constexpr int pieces = tileColumns / 8;
  for (int at = static_cast<int>(threadIdx.x); at < rows * pieces; at += static_cast<int>(blockDim.x)) {
    const int line = at / pieces;
    const int column = at % pieces * 8;
    const int64_t row = tile.firstRow + firstRow + line;
    const int64_t left = p.n - tile.firstColumn - column;
    if (row >= tile.lastRow || left <= 0) continue;
    const int count = left < 8 ? static_cast<int>(left) : 8;
    EightFloats values = loadPack<float, 8>(finished + finishedAt<tileColumns>(line, column));
    const float scale = p.rowScale != nullptr ? p.rowScale[row] : 1.0f;
    UNROLL for (int i = 0; i < 8; ++i) values.value[i] *= scale;
    if (p.bias != nullptr) {
      const float* bias = p.bias + tile.group * p.n + tile.firstColumn + column;
      UNROLL for (int i = 0; i < 8; ++i) {
        if (i < count) values.value[i] += bias[i];
      }
    }
    const int64_t element = row * p.n + tile.firstColumn + column;
    if (p.preActivation != nullptr) {
      storeEight(static_cast<T*>(p.preActivation) + element, values, count, p.packedStores);
    }
    withActivation(p.activation, [&]<Activation kind>() {
      UNROLL for (int i = 0; i < 8; ++i) values.value[i] = activate<kind>(values.value[i]);
    });
    if (p.yType == DType::float32) {
      writeEight(p, static_cast<float*>(p.y) + element, values, count);
    } else {
      writeEight(p, static_cast<bfloat16*>(p.y) + element, values, count);
    }
  }
}

}  // namespace dp_moe
