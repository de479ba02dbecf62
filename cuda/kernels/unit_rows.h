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

/// Rows of the units from .. to - 1; none, and a report, where their offsets do not rise within [0, rows].
DEVICE UnitRows rowsOfUnits(const int32_t* offsets, int64_t from, int64_t to, int64_t rows,
                            const Report& wrongOffsets) {
  const int32_t first = offsets[from];
  const int32_t last = offsets[to];
  if (first >= 0 && first <= last && last <= rows) return {first, last};
  report(wrongOffsets, last);
  return {0, 0};
}

DEVICE UnitRows unitRows(const int32_t* offsets, int64_t unit, int64_t rows, const Report& wrongOffsets) {
  return rowsOfUnits(offsets, unit, unit + 1, rows, wrongOffsets);
}

}  // namespace dp_moe
