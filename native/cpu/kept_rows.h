#pragma once

#include <vector>

#include "buffer.h"
#include "scratch.h"

namespace dp_moe {

/// The rows of each group whose unit's factor is not 0, in order, with their factors. A row that is left out is never
/// read, whatever it holds.
struct KeptRows {
  int32_t* dyRows;
  int32_t* xRows;
  float* scale;
  std::vector<int64_t> begin;  // [groups + 1]
};

struct KeptRowsSource {
  const Input<int32_t>& segmentOffsets;
  const Input<float>& factor;
  const int32_t* xRows;   // null: the row itself
  const int32_t* tileOf;  // null: every segment is kept as rows
  int64_t rows;
  int64_t segments;
  int64_t units;
};

inline KeptRows keptRows(const KeptRowsSource& source, Scratch& scratch) {
  int32_t* memory = scratch.take<int32_t>(3 * source.rows);
  KeptRows kept{memory, memory + source.rows, reinterpret_cast<float*>(memory + 2 * source.rows), {}};
  int64_t count = 0;
  for (int64_t segment = 0; segment < source.segments; ++segment) {
    const int64_t unit = segment % source.units;
    if (unit == 0) kept.begin.push_back(count);
    const float factor = source.factor.data == nullptr ? 1.0f : source.factor.data[unit];
    if (factor == 0.0f || (source.tileOf != nullptr && source.tileOf[segment] != -1)) continue;
    const int32_t end = source.segmentOffsets.data[segment + 1];
    for (int32_t row = source.segmentOffsets.data[segment]; row < end; ++row, ++count) {
      kept.dyRows[count] = row;
      kept.xRows[count] = source.xRows == nullptr ? row : source.xRows[row];
      kept.scale[count] = factor;
    }
  }
  kept.begin.push_back(count);
  return kept;
}

}  // namespace dp_moe
