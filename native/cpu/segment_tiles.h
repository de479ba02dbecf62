#pragma once

#include <algorithm>

#include "buffer.h"
#include "kernels/kernel_table.h"

namespace dp_moe {

/// The tiles dy' x of single segments, in blocks. An element is one chain over the rows of its segment, whichever op
/// asks for it: what a norm was taken of and what is then added are the same numbers.
class SegmentTiles {
 public:
  /// Params: SegmentGradientNormsParams or WeightGradientParams.
  template <class Params>
  SegmentTiles(const Params& params, const KernelTable& kernels)
      : dy_(params.dy.data),
        x_(params.x.data),
        xRows_(params.xRows.data),
        offsets_(params.segmentOffsets.data),
        p_(params.p),
        d_(params.d),
        kernels_(kernels),
        down_((p_ + kRows - 1) / kRows),
        across_((d_ + kColumns - 1) / kColumns) {}

  /// Rows [row, row + rows) and columns [column, column + columns) of a tile.
  struct Block {
    const float* values;
    int64_t row;
    int64_t column;
    int64_t rows;
    int64_t columns;
    int64_t stride;
  };

  int64_t count() const { return down_ * across_; }
  int64_t scratchSize() const { return blockScratch() + blockRows() * blockColumns(); }

  /// Block `index` of a segment's tile, in `tile` [p, d]; null: in scratch.
  Block make(int64_t segment, int64_t index, float* tile, float* scratch) const {
    const int64_t first = offsets_[segment];
    const int64_t row = index / across_ * kRows, column = index % across_ * kColumns;
    const OuterBlock block{
        .dy = dy_ + first * p_ + row,
        .x = x_ + (xRows_ == nullptr ? first * d_ : 0) + column,
        .dyRows = nullptr,
        .xRows = xRows_ == nullptr ? nullptr : xRows_ + first,
        .scale = nullptr,
        .c = tile == nullptr ? scratch + blockScratch() : tile + row * d_ + column,
        .scratch = scratch,
        .rows = offsets_[segment + 1] - first,
        .p = std::min(kRows, p_ - row),
        .d = std::min(kColumns, d_ - column),
        .dyStride = p_,
        .xStride = d_,
        .cStride = tile == nullptr ? blockColumns() : d_,
        .scaleDy = false,
        .accumulate = false,
    };
    kernels_.matrix.outer(block);
    return {block.c, row, column, block.p, block.d, block.cStride};
  }

  /// The squared norm of the block.
  double norm(int64_t segment, int64_t index, float* tile, float* scratch) const {
    const Block block = make(segment, index, tile, scratch);
    return kernels_.norms.squaredSum(block.values, block.rows, block.columns, block.stride);
  }

 private:
  static constexpr int64_t kRows = 128;
  static constexpr int64_t kColumns = 256;

  int64_t blockRows() const { return std::min(kRows, p_); }
  int64_t blockColumns() const { return std::min(kColumns, d_); }
  int64_t blockScratch() const { return kernels_.matrix.outerScratch(blockRows(), blockColumns()); }

  const float* dy_;
  const float* x_;
  const int32_t* xRows_;
  const int32_t* offsets_;
  int64_t p_;
  int64_t d_;
  const KernelTable& kernels_;
  int64_t down_;
  int64_t across_;
};

}  // namespace dp_moe
