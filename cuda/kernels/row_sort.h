#pragma once

#include <cstdint>

#include "report.h"

// Orders rows by id, those of an id in their order: a radix sort, eight bits in a pass, whose every pass keeps the
// order of equal digits. It takes three kernels per pass (countDigits, placeDigits, moveRows), after sortKeys has made
// the keys; nothing is left to which block is first.

namespace dp_moe {

constexpr int kSortThreads = 256;
constexpr int kDigits = 256;
constexpr int kSortRows = 2048;  // of a block
constexpr int kPlaceThreads = 1024;

/// keys[r] = ids[r], or `last` where the row is not to take part: it is past the units, or its unit's factor is 0.
struct SortKeysParams {
  const int32_t* ids;
  const int32_t* offsets;  // [units + 1]
  const float* factor;     // [units] optional
  uint32_t* keys;
  int32_t* rowOf;   // [rows]: 0, 1, ...
  int32_t* unitOf;  // [rows]: the unit, or -1 or `units` where the row does not take part
  int64_t rows;
  int64_t units;
  int64_t vocabulary;  // ids outside [0, vocabulary) are reported; 0: any id is right
  uint32_t last;
  Report wrongOffsets;
  Report wrongId;
};

/// A pass over bits shift .. shift + 7 of the keys.
struct SortPassParams {
  const uint32_t* keysFrom;
  const int32_t* rowsFrom;
  uint32_t* keysTo;
  int32_t* rowsTo;
  int32_t* counts;  // [kDigits, blocks]
  int64_t rows;
  int64_t blocks;
  int32_t shift;
};

}  // namespace dp_moe
