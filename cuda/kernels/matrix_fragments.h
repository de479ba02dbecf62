#pragma once

#include "kernel.h"
#include "matrix.h"
#include "real.h"
#include "unroll.h"

// Slabs of bfloat16 matrices in shared memory, and what a warp reads of them for multiplyAccumulate. Memory is counted
// in pieces of 8 elements (16 bytes). Pieces are swapped within a line so that the 8 pieces that a group of lanes
// copies, or that loadMatrix4 reads, lie in 8 different groups of banks.

namespace dp_moe {

using Piece = Pack<bfloat16, 8>;

/// [lines][kSlab]: the reduction runs within a line.
template <int lines>
struct InnerSlab {
  static constexpr int kPieces = kSlab / 8;
  DEVICE static int at(int line, int piece) { return line * kPieces + (piece ^ (line >> 1 & 3)); }

  /// Rows first .. first + 15 at 16 places of the reduction, as the left factor.
  DEVICE static void loadLeft(uint32_t (&a)[4], const Piece* slab, int first, int step) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    loadMatrix4(a, slab + at(first + lane % 16, step * 2 + lane / 16));
  }
  /// Columns first .. first + 15 as the right factor.
  DEVICE static void loadRight(uint32_t (&b)[4], const Piece* slab, int first, int step) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    loadMatrix4(b, slab + at(first + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
  }
};

/// [kSlab][lines]: the reduction runs from line to line.
template <int lines>
struct OuterSlab {
  static constexpr int kPieces = lines / 8;
  DEVICE static int at(int line, int piece) { return line * kPieces + (piece ^ (line & 7)); }

  DEVICE static void loadLeft(uint32_t (&a)[4], const Piece* slab, int first, int step) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    loadMatrix4Transposed(a, slab + at(step * 16 + lane / 16 * 8 + lane % 8, first / 8 + lane / 8 % 2));
  }
  DEVICE static void loadRight(uint32_t (&b)[4], const Piece* slab, int first, int step) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    loadMatrix4Transposed(b, slab + at(step * 16 + lane / 8 % 2 * 8 + lane % 8, first / 8 + lane / 16));
  }
};

/// A tile and how warps share it: in two rows of warps, each of warpColumns columns.
template <int rows, int columns, int warpColumns>
struct WarpTiles {
  static constexpr int kWarpRows = rows / 2;
  static constexpr int kWarpColumns = warpColumns;
  static constexpr int kWarpsAcross = columns / warpColumns;
  static constexpr MatrixTile kTile{rows, columns, 2 * kWarpsAcross* kWarp};
  static constexpr int kLeft = kWarpRows / 16;     // blocks of 16 rows of a warp
  static constexpr int kRight = kWarpColumns / 8;  // blocks of 8 columns
  using Sums = float[kLeft][kRight][4];

  DEVICE static int firstRow() { return static_cast<int>(threadIdx.x / kWarp) / kWarpsAcross * kWarpRows; }
  DEVICE static int firstColumn() { return static_cast<int>(threadIdx.x / kWarp) % kWarpsAcross * kWarpColumns; }

  DEVICE static void clear(Sums& sums) {
    UNROLL for (int i = 0; i < kLeft; ++i) {
      UNROLL for (int j = 0; j < kRight; ++j) { UNROLL for (int e = 0; e < 4; ++e) sums[i][j][e] = 0; }
    }
  }

  template <class Right>
  DEVICE static void loadRight(uint32_t (&b)[kRight][2], const Piece* slab, int step) {
    UNROLL for (int j = 0; j < kRight; j += 2) {
      uint32_t two[4];
      Right::loadRight(two, slab, firstColumn() + j * 8, step);
      b[j][0] = two[0];
      b[j][1] = two[1];
      b[j + 1][0] = two[2];
      b[j + 1][1] = two[3];
    }
  }

  /// sums += this warp's part of 16 places of the reduction.
  template <class Left>
  DEVICE static void multiply(Sums& sums, const Piece* left, const uint32_t (&b)[kRight][2], int step) {
    UNROLL for (int i = 0; i < kLeft; ++i) {
      uint32_t a[4];
      Left::loadLeft(a, left, firstRow() + i * 16, step);
      UNROLL for (int j = 0; j < kRight; ++j) multiplyAccumulate(sums[i][j], a, b[j]);
    }
  }
};

/// Copies a piece of which the first `count` elements exist (<= 0: none) and zeros for the rest; nothing else is read.
/// `packed`: pieces exist whole or not at all and start at multiples of 16 bytes; then in the background.
template <bool packed>
DEVICE void stagePiece(Piece* to, const bfloat16* from, int64_t count) {
  if constexpr (packed) {
    copyAsync16(to, from, count > 0 ? 16 : 0);
  } else {
    Piece piece = {};
    for (int i = 0; i < 8; ++i) {
      if (i < count) piece.value[i] = from[i];
    }
    *to = piece;
  }
}

}  // namespace dp_moe
