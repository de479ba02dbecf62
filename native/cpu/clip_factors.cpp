#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu_backend.h"
#include "norm_checks.h"

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

/// The largest float32 that is at most `factor`: rounding up would let a factor below the normal numbers, of few
/// digits, exceed the bound by far more than the margin.
float roundedDown(double factor) {
  const auto rounded = static_cast<float>(std::min<double>(factor, std::numeric_limits<float>::max()));
  return static_cast<double>(rounded) > factor ? std::nextafter(rounded, 0.0f) : rounded;
}

}  // namespace

void CpuBackend::clipFactors(const ClipFactorsParams& p) {
  checkSizes(p);
  for (int64_t group = 0; group < p.groups; ++group) {
    const float bound = p.bounds.data[group];
    checkThat(std::isfinite(bound) && bound >= 0, "clipFactors",
              "finite bounds of at least 0, got " + std::to_string(bound));
  }
  for (int64_t unit = 0; unit < p.units; ++unit) {
    const bool finite = finiteInAllGroups(p, unit);
    for (int64_t group = 0; group < p.groups; ++group) {
      const int64_t at = group * p.units + unit;
      double* statistics = p.statistics.data + 3 * group;
      const double bound = p.bounds.data[group] * kMargin;
      // A cross term may leave a norm of nothing a rounding below zero.
      const double norm = p.normSquared.data[at] > 0 ? std::sqrt(p.normSquared.data[at]) : 0.0;
      if (std::isfinite(p.normSquared.data[at])) {
        statistics[0] += norm > bound;
        statistics[2] += norm;
      } else {
        statistics[1] += 1;
      }
      const double factor = p.mode == 1 ? bound / (norm + p.stability) : norm > bound ? bound / norm : 1.0;
      p.factor.data[at] = finite ? roundedDown(factor) : 0.0f;
    }
  }
}

}  // namespace dp_moe
