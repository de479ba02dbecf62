#include "random/masks.h"

#include "kernels/lanes.h"
#include "kernels/mask_kernels.h"
#include "kernels/vector_words.h"

namespace dp_moe::DP_MOE_ISA {

namespace {

/// f.operator()<full>(element, count, words) over the elements [0, size) of a unit.
template <class F>
DP_MOE_INLINE void forMaskWords(const uint32_t start[16], int64_t size, F&& f) {
  alignas(64) uint32_t words[kWordsPerGroup];
  for (int64_t group = 0; group < size; group += kWordsPerGroup) {
    for (int first = 0; first < 16; first += W) {
      vu x[16];
      chachaBlocks(start, static_cast<uint32_t>(group / kWordsPerGroup * 16 + first), x);
      for (int k = 0; k < 16; ++k) store(words + 16 * k + first, x[k]);
    }
    forVectors(smaller(kWordsPerGroup, size - group),
               [&]<bool full>(int64_t i, int64_t n) { f.template operator()<full>(group + i, n, load(words + i)); });
  }
}

template <class P>
void startOfUnit(const P& p, RandomPurpose purpose, int64_t unit, uint32_t start[16]) {
  chachaState(reinterpret_cast<const uint32_t*>(p.key.data),
              {0, purposeWord(purpose, static_cast<uint32_t>(p.site)), static_cast<uint32_t>(p.step),
               static_cast<uint32_t>(p.unitIds.data[unit])},
              start);
}

void dropout(const DropoutParams& p, int64_t begin, int64_t end) {
  const vu threshold = broadcast(dropThreshold(p.rate));
  const float scale = 1.0f / (1.0f - p.rate);
  for (int64_t u = begin; u < end; ++u) {
    uint32_t start[16];
    startOfUnit(p, RandomPurpose::dropout, u, start);
    const int64_t first = p.segmentOffsets.data[u] * p.d;
    forMaskWords(start, p.segmentOffsets.data[u + 1] * p.d - first, [&]<bool full>(int64_t i, int64_t n, vu words) {
      const vf x = read<full>(p.x.data + first + i, n);
      write<full>(p.y.data + first + i, select((vi)(words >= threshold), x * scale, vf{}), n);
    });
  }
}

void jitter(const JitterParams& p, int64_t begin, int64_t end) {
  for (int64_t u = begin; u < end; ++u) {
    uint32_t start[16];
    startOfUnit(p, RandomPurpose::jitter, u, start);
    const int64_t first = p.segmentOffsets.data[u] * p.d;
    forMaskWords(start, p.segmentOffsets.data[u + 1] * p.d - first, [&]<bool full>(int64_t i, int64_t n, vu words) {
      const vi centred = (vi)((words >> 8 << 1) | 1u) - (1 << 24);
      const vf factor = toFloat(centred) * 0x1p-24f * p.epsilon + 1.0f;
      write<full>(p.y.data + first + i, read<full>(p.x.data + first + i, n) * factor, n);
    });
  }
}

}  // namespace

extern const MaskKernels maskKernels;
const MaskKernels maskKernels = {.dropout = dropout, .jitter = jitter};

}  // namespace dp_moe::DP_MOE_ISA
