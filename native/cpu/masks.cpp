#include "random/masks.h"

#include <string>

#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

namespace {

template <class P>
void checkMask(const P& p, float amount, const char* op) {
  checkSize(p.x, p.rows * p.d, op, "x");
  checkOffsets(p.segmentOffsets, p.units, p.rows, op, "segmentOffsets");
  checkSize(p.unitIds, p.units, op, "unitIds");
  checkSize(p.key, 8, op, "key");
  checkSize(p.y, p.rows * p.d, op, "y");
  checkThat(p.step >= 0 && p.step >> 32 == 0, op, "a step in [0, 2^32), got " + std::to_string(p.step));
  checkThat(p.site >= 0 && p.site >> 24 == 0, op, "a site in [0, 2^24), got " + std::to_string(p.site));
  checkThat(p.rows * p.d <= kMaxMaskElements, op, "at most 2^36 elements");
  checkThat(amount >= 0 && amount < 1, op, "a rate or epsilon in [0, 1), got " + std::to_string(amount));
}

}  // namespace

void CpuBackend::dropout(const DropoutParams& p) {
  checkMask(p, p.rate, "dropout");
  parallelRanges(threads_, p.units, 1, [&](int64_t begin, int64_t end) { kernels_.masks.dropout(p, begin, end); });
}

void CpuBackend::jitter(const JitterParams& p) {
  checkMask(p, p.epsilon, "jitter");
  parallelRanges(threads_, p.units, 1, [&](int64_t begin, int64_t end) { kernels_.masks.jitter(p, begin, end); });
}

}  // namespace dp_moe
