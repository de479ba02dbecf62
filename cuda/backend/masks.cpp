#include "../kernels/masks.h"

#include <string>

#include "../../native/random/masks.h"
#include "checks.h"
#include "cuda_backend.h"
#include "row_grids.h"

namespace dp_moe {

namespace {

/// P: DropoutParams or JitterParams.
template <class P>
void mask(Launcher& launcher, const P& p, float rate, uint32_t threshold, float amount, const char* op) {
  checkSize(p.x, p.rows * p.d, op, "x");
  checkSize(p.segmentOffsets, p.units + 1, op, "segmentOffsets");
  checkSize(p.unitIds, p.units, op, "unitIds");
  checkSize(p.key, 8, op, "key");
  checkSize(p.y, p.rows * p.d, op, "y");
  checkThat(p.step >= 0 && p.step >> 32 == 0, op, "a step in [0, 2^32), got " + std::to_string(p.step));
  checkThat(p.site >= 0 && p.site >> 24 == 0, op, "a site in [0, 2^24), got " + std::to_string(p.site));
  checkThat(p.rows * p.d <= kMaxMaskElements, op, "at most 2^36 elements");
  checkThat(rate >= 0 && rate < 1, op, "a rate or epsilon in [0, 1), got " + std::to_string(rate));
  launcher.launch(typed(op, realType(op, {p.x, p.y})),
                  gridOfUnits(p.units, p.rows * p.d, kMaskThreads / 16 * kMaskGroup), kMaskThreads,
                  MaskKernelParams{p.x.data, p.segmentOffsets.data, p.unitIds.data, p.key.data, p.y.data,
                                   offsetsReport(launcher, op, "segmentOffsets", p.rows), p.rows, p.d,
                                   static_cast<uint32_t>(p.step), static_cast<uint32_t>(p.site), threshold, amount});
}

}  // namespace

void CudaBackend::dropout(const DropoutParams& p) {
  mask(launcher_, p, p.rate, p.rate > 0 ? dropThreshold(p.rate) : 0, 1.0f / (1.0f - p.rate), "dropout");
}

void CudaBackend::jitter(const JitterParams& p) { mask(launcher_, p, p.epsilon, 0, p.epsilon, "jitter"); }

}  // namespace dp_moe
