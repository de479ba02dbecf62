#include "clip_factors.h"
#include "reductions.h"
#include "unit_rows.h"

// In double, with the CPU's operations: the factors are its bits.

namespace dp_moe::clipping {

// The clipped norm aims below the bound by more than the rounding of a float32 sum over a unit's gradient.
constexpr double kMargin = 1 - 0x1p-10;
constexpr float kLargest = 3.402823466e38f;

/// The largest float32 that is at most `factor`, which is not negative.
DEVICE float roundedDown(double factor) {
  const float rounded = factor < static_cast<double>(kLargest) ? static_cast<float>(factor) : kLargest;
  return static_cast<double>(rounded) > factor ? __uint_as_float(__float_as_uint(rounded) - 1) : rounded;
}

// A cross term may leave a norm of nothing a rounding below zero.
DEVICE double normOf(double squared) { return squared > 0 ? sqrt(squared) : 0.0; }

KERNEL(clipFactors, ClipFactorsKernelParams) {
  const ClipFactorsParams& op = p.op;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kClipThreads + threadIdx.x;
  if (unit >= op.units) return;
  bool finite = true;
  for (int64_t group = 0; group < op.groups; ++group) {
    finite = finite && isfinite(op.normSquared.data[group * op.units + unit]);
  }
  for (int64_t group = 0; group < op.groups; ++group) {
    const int64_t at = group * op.units + unit;
    const double bound = static_cast<double>(op.bounds.data[group]) * kMargin;
    const double norm = normOf(op.normSquared.data[at]);
    // A bound that bounds nothing is reported; nothing passes it meanwhile.
    const bool bounds = op.bounds.data[group] >= 0 && isfinite(op.bounds.data[group]);
    const double factor = op.mode == 1   ? bound / (norm + static_cast<double>(op.stability))
                          : norm > bound ? bound / norm
                                         : 1.0;
    op.factor.data[at] = finite && bounds ? roundedDown(factor) : 0.0f;
  }
}

KERNEL(clipStatistics, ClipFactorsKernelParams) {
  SHARED(double, clippedParts, kClipThreads / kWarp);
  SHARED(double, lostParts, kClipThreads / kWarp);
  SHARED(double, normParts, kClipThreads / kWarp);
  const ClipFactorsParams& op = p.op;
  const int64_t group = blockIdx.x;
  const float bound = op.bounds.data[group];
  if (threadIdx.x == 0 && !(isfinite(bound) && bound >= 0)) report(p.wrongBound, group);
  double clipped = 0, lost = 0, norms = 0;
  for (int64_t unit = threadIdx.x; unit < op.units; unit += kClipThreads) {
    const double squared = op.normSquared.data[group * op.units + unit];
    if (isfinite(squared)) {
      const double norm = normOf(squared);
      clipped += norm > static_cast<double>(bound) * kMargin ? 1 : 0;
      norms += norm;
    } else {
      lost += 1;
    }
  }
  clipped = blockSum(clipped, clippedParts);
  lost = blockSum(lost, lostParts);
  norms = blockSum(norms, normParts);
  if (threadIdx.x > 0) return;
  double* statistics = op.statistics.data + 3 * group;
  statistics[0] += clipped;
  statistics[1] += lost;
  statistics[2] += norms;
}

}  // namespace dp_moe::clipping
