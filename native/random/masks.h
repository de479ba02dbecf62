#pragma once

#include <cstdint>

#include "random/chacha.h"

// Random words for dropout and jitter, one per element of a unit.
//
// Element e = position in the unit * d + column takes its word from group e / 256 of 16 blocks: block
// 16 * (e / 256) + e % 16, word e % 256 / 16. So W blocks made side by side give W neighbouring elements per word, and
// a unit's words depend on nothing but (key, purpose, site, step, unit id, d, e).

namespace dp_moe {

constexpr int64_t kWordsPerGroup = 256;
constexpr int64_t kMaxMaskElements = (INT64_C(1) << 32) * 16;

DP_MOE_RANDOM_INLINE uint32_t maskWord(const uint32_t key[8], RandomPurpose purpose, uint32_t site, uint32_t step,
                                       uint32_t unitId, int64_t element) {
  uint32_t words[16];
  const auto counter = static_cast<uint32_t>(element / kWordsPerGroup * 16 + element % 16);
  chachaBlock(key, {counter, purposeWord(purpose, site), step, unitId}, words);
  return words[element % kWordsPerGroup / 16];
}

/// A word below this drops the element: round(rate 2^32), at most 2^32 - 1.
DP_MOE_RANDOM_INLINE uint32_t dropThreshold(float rate) {
  const double threshold = static_cast<double>(rate) * 0x1p32 + 0.5;
  return threshold < 0x1p32 - 1 ? static_cast<uint32_t>(threshold) : 0xffffffffu;
}

/// The factor in (1 - epsilon, 1 + epsilon) that a word stands for: 1 + epsilon * (odd multiple of 2^-24 in (-1, 1)).
DP_MOE_RANDOM_INLINE float jitterFactor(uint32_t word, float epsilon) {
  const auto centred = static_cast<int32_t>((word >> 8 << 1) | 1) - (1 << 24);
  return 1.0f + epsilon * (static_cast<float>(centred) * 0x1p-24f);
}

}  // namespace dp_moe
