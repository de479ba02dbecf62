#include "../../native/random/masks.h"
#include "masks.h"
#include "real.h"
#include "unit_rows.h"
#include "unroll.h"

namespace dp_moe {

namespace {

/// y = f(x, word) for every element of the block's unit.
template <class T, class F>
DEVICE void maskUnit(const MaskKernelParams& p, RandomPurpose purpose, F&& f) {
  constexpr int kLanes = 16;
  static_assert(kMaskGroup == kWordsPerGroup);
  const UnitRows rows = unitRows(p.segmentOffsets, blockIdx.x, p.rows, p.wrongOffsets);
  const int64_t size = (rows.last - rows.first) * p.d;
  const T* x = static_cast<const T*>(p.x) + rows.first * p.d;
  T* y = static_cast<T*>(p.y) + rows.first * p.d;
  uint32_t key[8];
  UNROLL
  for (int i = 0; i < 8; ++i) key[i] = static_cast<uint32_t>(p.key[i]);
  const auto unitId = static_cast<uint32_t>(p.unitIds[blockIdx.x]);
  const int lane = threadIdx.x % kLanes;
  const int64_t groupsAtOnce = kMaskThreads / kLanes;
  for (int64_t group = blockIdx.y * groupsAtOnce + threadIdx.x / kLanes; group * kMaskGroup + lane < size;
       group += gridDim.y * groupsAtOnce) {
    const int64_t first = group * kMaskGroup + lane;
    const auto left = static_cast<int>(min(size - first, int64_t{kMaskGroup}));
    T values[kLanes];  // on their way while the words are made
    UNROLL
    for (int i = 0; i < kLanes; ++i) {
      if (i * kLanes < left) values[i] = x[first + i * kLanes];
    }
    uint32_t words[kLanes];
    chachaBlock(key, {static_cast<uint32_t>(group * kLanes + lane), purposeWord(purpose, p.site), p.step, unitId},
                words);
    UNROLL
    for (int i = 0; i < kLanes; ++i) {
      if (i * kLanes < left) y[first + i * kLanes] = fromFloat<T>(f(toFloat(values[i]), words[i]));
    }
  }
}

template <class T>
DEVICE void dropoutBody(const MaskKernelParams& p) {
  maskUnit<T>(p, RandomPurpose::dropout,
              [&](float x, uint32_t word) { return word >= p.threshold ? x * p.amount : 0.0f; });
}

template <class T>
DEVICE void jitterBody(const MaskKernelParams& p) {
  maskUnit<T>(p, RandomPurpose::jitter, [&](float x, uint32_t word) { return x * jitterFactor(word, p.amount); });
}

}  // namespace

KERNEL(dropout_float32, MaskKernelParams) { dropoutBody<float>(p); }
KERNEL(dropout_bfloat16, MaskKernelParams) { dropoutBody<bfloat16>(p); }
KERNEL(jitter_float32, MaskKernelParams) { jitterBody<float>(p); }
KERNEL(jitter_bfloat16, MaskKernelParams) { jitterBody<bfloat16>(p); }

}  // namespace dp_moe
