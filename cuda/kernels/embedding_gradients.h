#pragma once

#include <cstdint>

#include "report.h"

// Rows of dy with one id, summed. A run is the rows of an id (gradient) or of an id within a unit (norms), in their
// order: neighbours after the sort of row_sort.h. A run is summed in chunks of kRunChunk rows, each by a warp of its
// own, and the chunks in order: a token that fills the batch is shared by many warps. Of the gradient, a chunk takes
// the units whose rows of the id start in it, and makes of each the numbers that its norm is taken of. Sums are in
// double.

namespace dp_moe {

constexpr int kEmbeddingThreads = 256;
constexpr int kRunChunk = 256;
constexpr int kEmbeddingColumns = 128;  // that a warp sums at a time: four per lane

struct FindRunsParams {
  const uint32_t* keys;   // [rows], sorted
  const int32_t* rowOf;   // [rows], sorted
  const int32_t* unitOf;  // [rows]
  int32_t* runFirst;      // [rows]: of each sorted position, its run; 0 .. 0 where the row does not take part
  int32_t* runLast;
  int64_t rows;
  int64_t units;
  bool byUnit;
};

/// sumRuns has a warp per sorted position and kEmbeddingColumns columns (blockIdx.y); so has addRuns, for the runs of
/// more than one chunk. In a stretch of kRunChunk positions start at most two chunks of such runs, one of them the
/// first of its run: parts has room for two per stretch.
struct SumRunsParams {
  const void* dy;
  const int32_t* rowOf;
  const int32_t* unitOf;
  const int32_t* runFirst;
  const int32_t* runLast;
  const float* factor;  // [units] optional
  double* parts;        // [2 * stretches, d]
  const uint32_t* keys;
  float* gradient;  // [vocabulary, d]
  double* norms;    // [rows, blocks of columns], where a run starts; 0 elsewhere
  int64_t rows;
  int64_t d;
  bool packed;
};

/// normSquared[unit] += the norms of its rows; a block per unit.
struct SumOfRowsParams {
  const double* norms;
  const int32_t* offsets;
  double* normSquared;
  int64_t rows;
  int64_t perRow;
  Report wrongOffsets;
};

/// norms[row] = |x[row, :]|; a warp per row.
struct RowNormsParams {
  const void* x;
  double* norms;
  int64_t rows;
  int64_t d;
  bool packed;
};

/// A block per unit and part (blockIdx.y): tiles of rows part, part + kTiedParts, ... of its embedding rows with all of
/// its head rows. values [units, kTiedParts].
constexpr int kTiedThreads = 128;
constexpr int kTiedParts = 16;
struct TiedNormsParams {
  const void* dEmbedding;
  const int32_t* ids;
  const int32_t* embeddingOffsets;
  const void* dLogits;
  const void* x;
  const int32_t* headOffsets;
  const double* embeddingNorms;  // [embeddingRows]
  const double* headNorms;       // [headRows]
  double* values;
  int64_t embeddingRows;
  int64_t headRows;
  int64_t d;
  int64_t vocabulary;
  Report wrongEmbeddingOffsets;
  Report wrongHeadOffsets;
  Report wrongId;
  bool packed;
};

}  // namespace dp_moe
