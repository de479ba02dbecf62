#pragma once

#include <cstdint>

#include "report.h"

// How threads share rows of d elements where every element is a result of its own: which thread makes it changes no
// bit.

namespace dp_moe {

/// All rows, or the first *count.
struct RowWalk {
  int64_t rows;
  int64_t d;
  const int32_t* count;  // may be null
  int32_t laneBits;      // 2^laneBits neighbouring threads share a row
  bool packed;           // every row starts at a multiple of 16 bytes
};

/// The rows of one unit per blockIdx.x, shared by the blocks of all blockIdx.y.
struct UnitWalk {
  const int32_t* offsets;
  Report wrongOffsets;
  int64_t rows;
  int64_t d;
  int32_t laneBits;
  bool packed;
};

}  // namespace dp_moe
