#include <algorithm>
#include <cmath>

#include "checks.h"
#include "cpu_backend.h"

namespace dp_moe {

namespace {

// The clipped norm aims below the bound by more than the rounding of a float32 sum over a unit's gradient.
constexpr double kMargin = 1 - 0x1p-10;

bool finiteInAllGroups(const ClipFactorsParams& p, int64_t unit) {
  for (int64_t group = 0; group < p.groups; ++group) {
    if (!std::isfinite(p.normSquared.data[group * p.units + unit])) return false;
  }
  return true;
}

}  // namespace

void CpuBackend::clipFactors(const ClipFactorsParams& p) {
  constexpr const char* op = "clipFactors";
  checkThat(p.mode == 0 || p.mode == 1, op, "mode 0 (flat) or 1 (automatic), got " + std::to_string(p.mode));
  checkSize(p.normSquared, p.groups * p.units, op, "normSquared");
  checkSize(p.bounds, p.groups, op, "bounds");
  checkSize(p.factor, p.groups * p.units, op, "factor");
  checkSize(p.statistics, p.groups * 3, op, "statistics");
  for (int64_t unit = 0; unit < p.units; ++unit) {
    const bool finite = finiteInAllGroups(p, unit);
    for (int64_t group = 0; group < p.groups; ++group) {
      const int64_t at = group * p.units + unit;
      double* statistics = p.statistics.data + 3 * group;
      const double bound = p.bounds.data[group] * kMargin;
      // A cross term may leave a norm of nothing a rounding below zero.
      const double norm = std::sqrt(std::max(p.normSquared.data[at], 0.0));
      if (std::isfinite(p.normSquared.data[at])) {
        statistics[0] += norm > bound;
        statistics[2] += norm;
      } else {
        statistics[1] += 1;
      }
      const double factor = p.mode == 0 ? std::min(1.0, bound / norm) : bound / (norm + p.stability);
      p.factor.data[at] = finite ? static_cast<float>(factor) : 0.0f;
    }
  }
}

}  // namespace dp_moe
