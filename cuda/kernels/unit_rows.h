#pragma once

#include <cstdint>

#include "kernel.h"
#include "report.h"

namespace dp_moe {

DEVICE void report(const Report& wrong, int64_t value) {
  reportError(wrong.status, wrong.code, static_cast<int32_t>(value));
}

struct UnitRows {
  int64_t first;
  int64_t last;
};

/// Rows of a unit; none, and a report, where its offsets do not rise within [0, rows].
DEVICE UnitRows unitRows(const int32_t* offsets, int64_t unit, int64_t rows, const Report& wrongOffsets) {
  const int32_t first = offsets[unit];
  const int32_t last = offsets[unit + 1];
  if (first >= 0 && first <= last && last <= rows) return {first, last};
  report(wrongOffsets, last);
  return {0, 0};
}

}  // namespace dp_moe
