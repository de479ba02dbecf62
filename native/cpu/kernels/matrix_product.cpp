#include "kernels/activations.h"
#include "kernels/matrix.h"
#include "kernels/matrix_tile.h"

// y = activation(rowScale * x W + bias), a block of rows and columns at a time.
//
// An element of y is one chain of fma over k = 0, 1, 2, ... whatever the block, the tile or its neighbours. k runs in
// slices so that a panel's slice (depth * panelWidth floats) stays in the first-level cache while all row tiles of the
// block pass over it; between slices the chains wait in `partial`, unrounded. Rows of x are read through row pointers,
// so a gather costs nothing; long ones are copied slice by slice.

namespace dp_moe::DP_MOE_ISA {

namespace {

constexpr int64_t sliceDepth = 384;
constexpr int64_t copyStride = sliceDepth + 16;

DP_MOE_INLINE int64_t partialSize(int64_t rows, int64_t columns) { return rows * ((columns + W - 1) / W * W); }

/// Where the parts of a tile lie: row pointers into x at the slice's first k, and the tile's corner of the block.
template <int rows>
struct TileRows {
  const float* x[rows];
};

template <int rows, int vectors>
struct Accumulators {
  vf lanes[rows][vectors];
};

template <int rows, int vectors>
DP_MOE_INLINE void multiplyTile(const TileRows<rows>& at, const float* panel, int64_t panelStride, int64_t depth,
                                Accumulators<rows, vectors>& sum) {
  Accumulators<rows, vectors> local = sum;
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k) {
    vf b[vectors];
    for (int v = 0; v < vectors; ++v) b[v] = load(panel + v * W);
    panel += panelStride;
    for (int r = 0; r < rows; ++r) {
      const vf a = broadcast(at.x[r][k]);
      for (int v = 0; v < vectors; ++v) local.lanes[r][v] = fma(a, b[v], local.lanes[r][v]);
    }
  }
  sum = local;
}

/// The chain's end: scale, bias, the activation and its argument, the sum with y.
template <Activation kind>
void finishRow(const ProductBlock& block, int64_t row, int64_t column, int64_t columns, const float* values) {
  float* y = block.y + row * block.n + column;
  float* preActivation = block.preActivation == nullptr ? nullptr : block.preActivation + row * block.n + column;
  const float* bias = block.bias == nullptr ? nullptr : block.bias + column;
  const vf scale = broadcast(block.rowScale == nullptr ? 1.0f : block.rowScale[row]);
  for (int64_t i = 0; i < columns; i += W) {
    const int64_t valid = columns - i < W ? columns - i : W;
    vf value = load(values + i) * scale;
    if (bias != nullptr) value += loadPartial(bias + i, valid);
    if (preActivation != nullptr) storePartial(preActivation + i, value, valid);
    value = activate<kind>(value);
    if (block.accumulate) value += loadPartial(y + i, valid);
    storePartial(y + i, value, valid);
  }
}

void finishRows(const ProductBlock& block, int64_t row, int64_t rows, int64_t column, int64_t columns,
                const float* values, int64_t stride) {
  withActivation(block.activation, [&]<Activation kind>() {
    for (int64_t r = 0; r < rows; ++r) finishRow<kind>(block, row + r, column, columns, values + r * stride);
  });
}

template <int rows, int vectors>
DP_MOE_INLINE void finishTile(const ProductBlock& block, int64_t row, int64_t column, int64_t columns,
                              const Accumulators<rows, vectors>& sum) {
  const bool plain = block.rowScale == nullptr && block.bias == nullptr && block.preActivation == nullptr &&
                     block.activation == Activation::none && !block.accumulate;
  if (plain && columns >= vectors * W) {
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) store(block.y + (row + r) * block.n + column + v * W, sum.lanes[r][v]);
    }
    return;
  }
  float values[rows][vectors * W];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) store(values[r] + v * W, sum.lanes[r][v]);
  }
  finishRows(block, row, rows, column, columns, values[0], vectors * W);
}

/// A slice of k, and the block's rows of x in it: copies of them, or null where they are read in place.
struct Slice {
  int64_t first;
  int64_t depth;
  float* copies;
};

DP_MOE_INLINE const float* sourceRow(const ProductBlock& block, int64_t row, int64_t firstK) {
  const int64_t source = block.xRows == nullptr ? row : block.xRows[row];
  return block.x + source * block.k + firstK;
}

void copySlice(const ProductBlock& block, const Slice& slice) {
  for (int64_t row = 0; row < block.rows; ++row) {
    const float* from = sourceRow(block, row, slice.first);
    float* to = slice.copies + row * copyStride;
    int64_t at = 0;
    for (; at + W <= slice.depth; at += W) store(to + at, load(from + at));
    if (at < slice.depth) storePartial(to + at, loadPartial(from + at, slice.depth - at), slice.depth - at);
  }
}

/// One slice of k of one tile.
template <int rows, int vectors>
void runTile(const ProductBlock& block, const float* panel, int64_t row, int64_t column, int64_t columns,
             const Slice& slice) {
  const int64_t firstK = slice.first, depth = slice.depth;
  TileRows<rows> at;
  for (int r = 0; r < rows; ++r) {
    at.x[r] = slice.copies == nullptr ? sourceRow(block, row + r, firstK) : slice.copies + (row + r) * copyStride;
  }
  if (firstK + depth == block.k) {  // lines of y are on their way while the tile is computed
    float* y = block.y + row * block.n + column;
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) __builtin_prefetch(y + r * block.n + v * W, 1);
    }
  }
  float* partial = block.partial + column * block.rows + row * (vectors * W);
  Accumulators<rows, vectors> sum{};
  if (firstK > 0) {
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) sum.lanes[r][v] = load(partial + (r * vectors + v) * W);
    }
  }
  multiplyTile<rows, vectors>(at, panel, block.packed ? vectors * W : block.n, depth, sum);
  if (firstK + depth < block.k) {
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) store(partial + (r * vectors + v) * W, sum.lanes[r][v]);
    }
  } else {
    finishTile<rows, vectors>(block, row, column, columns, sum);
  }
}

template <int vectors>
void runPanel(const ProductBlock& block, const float* panel, int64_t column, int64_t columns, const Slice& slice) {
  const int64_t tiles = tileCount(block.rows, tileRows<vectors>);
  int64_t row = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t rows = (block.rows - row) / (tiles - tile);
    withRows<tileRows<vectors>>(
        rows, [&]<int count>() { runTile<count, vectors>(block, panel, row, column, columns, slice); });
    row += rows;
  }
}

}  // namespace

int64_t productPackedSize(int64_t k, int64_t columns) { return k * ((columns + W - 1) / W * W); }

int64_t productScratch(int64_t rows, int64_t columns) { return partialSize(rows, columns) + rows * copyStride; }

void product(const ProductBlock& block) {
  const int64_t slices = block.k <= sliceDepth ? 1 : tileCount(block.k, sliceDepth);
  // Far apart rows share few sets of the cache, so they are brought together where panels enough gain from it.
  const bool copies = slices > 2 && block.columns > 2 * panelWidth;
  Slice slice{0, 0, copies ? block.partial + partialSize(block.rows, block.columns) : nullptr};
  for (int64_t left = slices; left > 0; --left) {
    slice.depth = (block.k - slice.first) / left;
    if (slice.copies != nullptr) copySlice(block, slice);
    for (int64_t column = 0; column < block.columns; column += panelWidth) {
      const int64_t columns = block.columns - column < panelWidth ? block.columns - column : panelWidth;
      const int64_t width = columns > W ? panelWidth : W;
      const float* panel = block.packed ? block.weight + column * block.k + slice.first * width
                                        : block.weight + slice.first * block.n + column;
      if (columns > W) {
        runPanel<2>(block, panel, column, columns, slice);
      } else {
        runPanel<1>(block, panel, column, columns, slice);
      }
    }
    slice.first += slice.depth;
  }
}

}  // namespace dp_moe::DP_MOE_ISA
