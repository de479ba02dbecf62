#include "kernels/matrix.h"
#include "kernels/matrix_tile.h"

// c [p, d] (+)= sum over rows of scale * dy' x: the weight gradient, and the tile of one segment.
//
// Rows are taken in order, in chunks of a fixed size; a chunk's sum is one chain of fma per element, added to c when
// the chunk ends (short chains keep the rounding error of long sums small). Both operands are copied into panels:
// dy by tiles of rows of c, x by panels of columns; the scale is applied to one of them on the way.

namespace dp_moe::DP_MOE_ISA {

namespace {

constexpr int64_t copyRows = 8;  // source rows that stay in the first-level cache while all panels take their part

DP_MOE_INLINE int64_t rowAt(const int32_t* rows, int64_t i) { return rows == nullptr ? i : rows[i]; }

/// Floats from one packed tile, or panel, to the next: copies write whole vectors, so there is room past the last
/// one, and distances are no powers of two.
DP_MOE_INLINE int64_t tileStride(int64_t depth) { return (depth * tileRowsWide + 2 * W + 15) / 16 * 16; }
DP_MOE_INLINE int64_t panelStride(int64_t depth) { return depth * panelWidth + 16; }

/// First row of c of a tile: tiles differ by a row at most.
DP_MOE_INLINE int64_t tileBegin(int64_t p, int64_t tile) { return p * tile / tileCount(p, tileRowsWide); }

/// dy's columns [first, first + width) of rows [begin, end) of the chunk, `width` floats per row of the tile.
DP_MOE_INLINE void copyTile(const OuterBlock& block, const OuterChunk& chunk, int64_t begin, int64_t end, int64_t first,
                            int64_t width, float* tile) {
  for (int64_t i = begin; i < end; ++i) {
    const float* source = block.dy + rowAt(block.dyRows, chunk.first + i) * block.dyStride + first;
    const vf scale = broadcast(block.scaleDy && block.scale != nullptr ? block.scale[chunk.first + i] : 1.0f);
    for (int64_t column = 0; column < width; column += W) {
      const int64_t left = block.p - first - column;
      const vf value = left >= W ? load(source + column) : loadPartial(source + column, left);
      store(tile + i * width + column, value * scale);
    }
  }
}

DP_MOE_INLINE void copyPanel(const OuterBlock& block, const OuterChunk& chunk, int64_t begin, int64_t end,
                             int64_t first, float* panel) {
  const int64_t left = block.d - first;
  for (int64_t i = begin; i < end; ++i) {
    const float* source = block.x + rowAt(block.xRows, chunk.first + i) * block.xStride + first;
    const vf scale = broadcast(!block.scaleDy && block.scale != nullptr ? block.scale[chunk.first + i] : 1.0f);
    if (left >= panelWidth) {
      store(panel + i * panelWidth, load(source) * scale);
      store(panel + i * panelWidth + W, load(source + W) * scale);
    } else {
      store(panel + i * panelWidth, loadPartial(source, left < W ? left : W) * scale);
      store(panel + i * panelWidth + W, loadPartial(source + W, left > W ? left - W : 0) * scale);
    }
  }
}

template <int rows>
DP_MOE_INLINE void addTile(const float* tile, const float* panel, int64_t depth, float* c, int64_t stride,
                           int64_t columns, bool accumulate) {
  vf sum[rows][2] = {};
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; ++k) {
    const vf b0 = load(panel), b1 = load(panel + W);
    panel += panelWidth;
    DP_MOE_UNROLL
    for (int r = 0; r < rows; ++r) {
      const vf a = broadcast(tile[r]);
      sum[r][0] = fma(a, b0, sum[r][0]);
      sum[r][1] = fma(a, b1, sum[r][1]);
    }
    tile += rows;
  }
  const int64_t low = columns < W ? columns : W, high = columns > W ? columns - W : 0;
  if (columns >= panelWidth) {
    DP_MOE_UNROLL
    for (int r = 0; r < rows; ++r) {
      float* at = c + r * stride;
      store(at, accumulate ? load(at) + sum[r][0] : sum[r][0]);
      store(at + W, accumulate ? load(at + W) + sum[r][1] : sum[r][1]);
    }
  } else {
    DP_MOE_UNROLL
    for (int r = 0; r < rows; ++r) {
      float* at = c + r * stride;
      storePartial(at, accumulate ? loadPartial(at, low) + sum[r][0] : sum[r][0], low);
      if (high > 0) storePartial(at + W, accumulate ? loadPartial(at + W, high) + sum[r][1] : sum[r][1], high);
    }
  }
}

}  // namespace

int64_t outerTiles(int64_t p) { return tileCount(p, tileRowsWide); }
int64_t outerPanels(int64_t d) { return tileCount(d, panelWidth); }

int64_t outerPackedSize(int64_t depth, int64_t p, int64_t d) {
  return outerTiles(p) * tileStride(depth) + outerPanels(d) * panelStride(depth);
}

int64_t outerScratch(int64_t p, int64_t d) { return outerPackedSize(outerChunkRows, p, d); }

void packOuter(const OuterBlock& block, const OuterChunk& chunk, const OuterPart& part) {
  float* packedX = chunk.packed + outerTiles(block.p) * tileStride(chunk.depth);
  for (int64_t begin = 0; begin < chunk.depth; begin += copyRows) {
    const int64_t end = begin + copyRows < chunk.depth ? begin + copyRows : chunk.depth;
    for (int64_t tile = part.firstTile; tile < part.endTile; ++tile) {
      const int64_t row = tileBegin(block.p, tile);
      copyTile(block, chunk, begin, end, row, tileBegin(block.p, tile + 1) - row,
               chunk.packed + tile * tileStride(chunk.depth));
    }
    for (int64_t panel = part.firstPanel; panel < part.endPanel; ++panel) {
      copyPanel(block, chunk, begin, end, panel * panelWidth, packedX + panel * panelStride(chunk.depth));
    }
  }
}

void addOuter(const OuterBlock& block, const OuterChunk& chunk, const OuterPart& part) {
  const float* packedX = chunk.packed + outerTiles(block.p) * tileStride(chunk.depth);
  for (int64_t panel = part.firstPanel; panel < part.endPanel; ++panel) {
    const int64_t column = panel * panelWidth;
    const int64_t columns = block.d - column < panelWidth ? block.d - column : panelWidth;
    for (int64_t tile = part.firstTile; tile < part.endTile; ++tile) {
      const int64_t row = tileBegin(block.p, tile);
      withRows<tileRowsWide>(tileBegin(block.p, tile + 1) - row, [&]<int rows>() {
        addTile<rows>(chunk.packed + tile * tileStride(chunk.depth), packedX + panel * panelStride(chunk.depth),
                      chunk.depth, block.c + row * block.cStride + column, block.cStride, columns,
                      block.accumulate || chunk.first > 0);
      });
    }
  }
}

void outer(const OuterBlock& block) {
  const OuterPart all{0, outerTiles(block.p), 0, outerPanels(block.d)};
  // A sum of no rows is zero: one chunk of no rows writes it.
  for (int64_t first = 0; first < block.rows || first == 0; first += outerChunkRows) {
    const int64_t left = block.rows - first;
    const OuterChunk chunk{first, left < outerChunkRows ? left : outerChunkRows, block.scratch};
    packOuter(block, chunk, all);
    addOuter(block, chunk, all);
  }
}

void addTiles(float* c, const float* const* tiles, const float* scale, int64_t count, int64_t p, int64_t d,
              int64_t cStride) {
  constexpr int64_t together = 4;  // streams at a time, while the block of c stays in cache
  for (int64_t first = 0; first < count; first += together) {
    const int64_t end = first + together < count ? first + together : count;
    for (int64_t row = 0; row < p; ++row) {
      for (int64_t column = 0; column < d; column += W) {
        const int64_t at = row * cStride + column;
        const int64_t valid = d - column < W ? d - column : W;
        vf sum = loadPartial(c + at, valid);
        for (int64_t t = first; t < end; ++t) sum = fma(broadcast(scale[t]), loadPartial(tiles[t] + at, valid), sum);
        storePartial(c + at, sum, valid);
      }
    }
  }
}

}  // namespace dp_moe::DP_MOE_ISA
