#pragma once

#include "real.h"
#include "unroll.h"

namespace dp_moe {

/// Elements c .. c + n - 1 of a row as floats, zeros past its end. `packed`: whole packs lie at multiples of their
/// size.
template <class T, int n>
DEVICE Pack<float, n> loadColumns(const T* row, int64_t c, int64_t columns, bool packed) {
  if (packed && c + n <= columns) return loadFloats<T, n>(row + c);
  Pack<float, n> values;
  UNROLL
  for (int i = 0; i < n; ++i) values.value[i] = c + i < columns ? toFloat(row[c + i]) : 0.0f;
  return values;
}

}  // namespace dp_moe
