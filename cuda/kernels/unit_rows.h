#pragma once

#include <cstdint>

#include "errors.h"
#include "kernel.h"

namespace dp_moe {

struct UnitRows {
  int64_t first;
  int64_t last;
};

/// Rows of a unit; none, and an error, where its offsets do not rise within [0, rows].
DEVICE UnitRows unitRows(const int32_t* offsets, int64_t unit, int64_t rows, int32_t* status) {
  const int32_t first = offsets[unit];
  const int32_t last = offsets[unit + 1];
  if (first >= 0 && first <= last && last <= rows) return {first, last};
  reportError(status, DeviceError::offsets, last);
  return {0, 0};
}

}  // namespace dp_moe
