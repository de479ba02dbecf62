#pragma once

#include "kernel.h"
#include "matrix.h"
#include "real.h"
#include "unroll.h"

// Products of float32 matrices without tensor cores: 16 x 16 or 8 x 16 threads, each with 8 rows and 8 or 4 columns of
// a tile. Slabs of 16 places of the reduction go from memory through registers into one of two buffers [16][lines],
// while the other is multiplied.

namespace dp_moe {

template <int rows_>
struct ThreadTiles {
  static constexpr MatrixTile kTile = rows_ == kWideTile.rows ? kWideTile : kNarrowTile;
  static constexpr int kRows = 8;  // of a thread: in two groups of 4, half a tile apart
  static constexpr int kColumns = kTile.rows * kTile.columns / kTile.threads / kRows;
  static constexpr int kAcross = kTile.columns / kColumns;
  static constexpr int kLeftLine = kTile.rows + kFloat32Padding;
  static constexpr int kRightLine = kTile.columns + kFloat32Padding;
  using Sums = float[kRows][kColumns];

  DEVICE static int row(int i) {
    return static_cast<int>(threadIdx.x) / kAcross * 4 + i / 4 * (kTile.rows / 2) + i % 4;
  }
  DEVICE static int column(int j) {
    return static_cast<int>(threadIdx.x) % kAcross * 4 + j / 4 * (kTile.columns / 2) + j % 4;
  }

  DEVICE static void clear(Sums& sums) {
    UNROLL for (int i = 0; i < kRows; ++i) { UNROLL for (int j = 0; j < kColumns; ++j) sums[i][j] = 0; }
  }

  /// sums += left' right over a slab, one place after the other.
  DEVICE static void multiply(Sums& sums, const float* left, const float* right) {
    UNROLL_BY(2) for (int k = 0; k < kFloat32Slab; ++k) {
      float a[kRows];
      float b[kColumns];
      UNROLL for (int i = 0; i < kRows; i += 4) {
        const auto four = loadPack<float, 4>(left + k * kLeftLine + row(i));
        UNROLL for (int e = 0; e < 4; ++e) a[i + e] = four.value[e];
      }
      UNROLL for (int j = 0; j < kColumns; j += 4) {
        const auto four = loadPack<float, 4>(right + k * kRightLine + column(j));
        UNROLL for (int e = 0; e < 4; ++e) b[j + e] = four.value[e];
      }
      UNROLL for (int i = 0; i < kRows; ++i) {
        UNROLL for (int j = 0; j < kColumns; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
      }
    }
  }
};

/// Eight places of the reduction of one line of a slab, on their way through a thread's registers. There are twice as
/// many threads as lines. `inner`: the reduction runs within a line of the matrix, so that two threads share one.
template <int lines, bool inner>
struct Float32Share {
  float value[8];

  DEVICE static int line() { return static_cast<int>(threadIdx.x) / (inner ? 2 : 1) % lines; }
  DEVICE static int first() { return static_cast<int>(inner ? threadIdx.x % 2 : threadIdx.x / lines) * 8; }

  DEVICE void store(float* buffer) const {
    UNROLL for (int i = 0; i < 8; ++i) buffer[(first() + i) * (lines + kFloat32Padding) + line()] = value[i];
  }
};

}  // namespace dp_moe
