#pragma once

#include <cstdint>

#include "params.h"

namespace dp_moe {

/// A block of a product: `rows` rows of y by `columns` columns. Pointers stand at the block's first row and column.
struct ProductBlock {
  const float* x;         // row r of the block is x + xRows[r] * k, or x + r * k where xRows is null
  const int32_t* xRows;   // null, or [rows]
  const float* rowScale;  // null, or [rows]
  const float* weight;    // the panels of the block's columns, from packWeight, or the weight [k, n] itself
  const float* bias;      // null, or [columns]
  float* y;               // row stride n
  float* preActivation;   // null, or as y
  float* partial;         // scratch of productScratch(rows, columns) floats
  int64_t rows;
  int64_t columns;
  int64_t k;
  int64_t n;
  bool packed;  // else n is a multiple of panelColumns
  bool accumulate;
  Activation activation;
};

/// A block of a sum of outer products: c [p, d] (+=) sum over i < rows of scale[i] * dy[dyRows[i], :]' x[xRows[i], :].
/// Row lists left null stand for 0, 1, 2, ...
struct OuterBlock {
  const float* dy;        // at the block's first column
  const float* x;         // at the block's first column
  const int32_t* dyRows;  // null, or [rows]
  const int32_t* xRows;   // null, or [rows]
  const float* scale;     // null, or [rows]
  float* c;               // row stride cStride
  float* scratch;         // outerScratch(p, d) floats; not used by packOuter and addOuter
  int64_t rows;
  int64_t p;
  int64_t d;
  int64_t dyStride;
  int64_t xStride;
  int64_t cStride;
  bool scaleDy;     // the scale goes into dy (else into x)
  bool accumulate;  // +=, else =
};

/// A sum of outer products is taken in chunks of this many rows: one chain of fma per chunk and element.
constexpr int64_t outerChunkRows = 256;

/// Rows [first, first + depth) of an OuterBlock, `first` a multiple of outerChunkRows, and their copy in panels.
struct OuterChunk {
  int64_t first;
  int64_t depth;
  float* packed;  // outerPackedSize(depth, p, d) floats
};

/// Some of the outerTiles(p) tiles of rows of c (columns of dy) and of its outerPanels(d) panels of columns.
struct OuterPart {
  int64_t firstTile;
  int64_t endTile;
  int64_t firstPanel;
  int64_t endPanel;
};

struct MatrixKernels {
  int64_t panelColumns;  // columns of a full panel: blocks of columns start at a multiple of it

  /// Columns [first, first + columns) of one group's weight in panels; `packed` takes packedSize(k, columns) floats.
  void (*packWeight)(const float* weight, int64_t k, int64_t n, bool transposed, int64_t first, int64_t columns,
                     float* packed);
  int64_t (*packedSize)(int64_t k, int64_t columns);
  int64_t (*productScratch)(int64_t rows, int64_t columns);
  void (*product)(const ProductBlock&);

  int64_t (*outerScratch)(int64_t p, int64_t d);
  void (*outer)(const OuterBlock&);
  // The same in parts that threads share: every tile and panel of a chunk is copied once, then c takes the chunks in
  // order, tiles by panels.
  int64_t (*outerTiles)(int64_t p);
  int64_t (*outerPanels)(int64_t d);
  int64_t (*outerPackedSize)(int64_t depth, int64_t p, int64_t d);
  void (*packOuter)(const OuterBlock&, const OuterChunk&, const OuterPart&);
  void (*addOuter)(const OuterBlock&, const OuterChunk&, const OuterPart&);
  /// c [p, d] += sum over i < count of scale[i] * tiles[i] [p, d]; row stride cStride for all.
  void (*addTiles)(float* c, const float* const* tiles, const float* scale, int64_t count, int64_t p, int64_t d,
                   int64_t cStride);
};

}  // namespace dp_moe
