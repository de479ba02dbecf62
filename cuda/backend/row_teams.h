#pragma once

#include <initializer_list>
#include <string>

#include "../kernels/row_team_shape.h"
#include "checks.h"
#include "row_grids.h"

namespace dp_moe {

/// A launch of a kernel that gives each row of d elements a warp or, in its variant for wide rows, a block.
struct TeamLaunch {
  std::string kernel;
  Dim grid;
  uint32_t threads;
};

inline TeamLaunch teamLaunch(const std::string& name, DType dtype, int64_t rows, int64_t d) {
  if (d <= kWarpRow) return {typed(name.c_str(), dtype), {blocksFor(rows, kWarpTeams)}, kWarpTeams * 32};
  return {typed((name + "Wide").c_str(), dtype), {static_cast<uint32_t>(rows)}, kBlockThreads};
}

inline RowOrder rowOrder(int64_t d, DType dtype, std::initializer_list<const void*> operands) {
  return {d % packOf(dtype) == 0, packedRows(d, dtype, operands)};
}

}  // namespace dp_moe
