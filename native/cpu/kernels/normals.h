#pragma once

#include "kernels/lanes.h"
#include "kernels/vector_words.h"
#include "random/gaussian.h"
#include "random/normal_transform.h"

// The normals of random/gaussian.h, a group of 128 at a time. No fused multiply-add and no choice by instruction set:
// the doubles are the same bits everywhere. The two halves of a vector of words go through together, so that two chains
// of dependent operations are in flight.

namespace dp_moe::DP_MOE_ISA {

typedef uint64_t vul __attribute__((vector_size(4 * W)));
typedef int32_t halfInts __attribute__((vector_size(2 * W)));

/// Doubles whose high words are `high` and whose low words are `low`, of lanes 0 .. WD - 1 and WD .. W - 1.
struct DoublePair {
  vd lower;
  vd upper;
};
DP_MOE_INLINE DoublePair joinWords(vu low, uint32_t high) {
  const vu top = broadcast(high);
  return {(vd)interleaveLower(low, top), (vd)interleaveUpper(low, top)};
}

/// Natural logarithm of u in (0, 1].
DP_MOE_INLINE vd logOfUniform(vd u) {
  const vul shifted = (vul)u + (kBitsOfOne - kBitsOfSqrtHalf);
  const vd exponent = (vd)((shifted >> 52) | kBitsOfTwoTo52) - (0x1p52 + 1023.0);
  return logOfParts((vd)((shifted & kFractionBits) + kBitsOfSqrtHalf) - 1.0, exponent);
}

DP_MOE_INLINE void boxMuller(vd u, vd r, vl swap, vl sign, double* x, double* y) {
  const vd radius = (vd)((vl)sqrt(logOfUniform(u) * -2.0) ^ sign);
  const vd sine = sinOfQuarter(r);
  const vd cosine = cosOfQuarter(r);
  store(x, radius * select(swap, sine, cosine));
  store(y, radius * select(swap, cosine, sine));
}

/// Words 4p .. 4p + 3 of W blocks give W pairs of normals.
DP_MOE_INLINE void normalsOfWords(const vu w[4], double* x, double* y) {
  const DoublePair uHigh = joinWords(w[1], kWordOfTwoTo20);
  const DoublePair uLow = joinWords(w[0] >> 11, kWordOfHalf);
  const DoublePair rHigh = joinWords(w[3] << 2, kWordOfTwoTo20);
  const DoublePair rLow = joinWords(w[2] >> 9, kWordOfHalf);
  // Bits 31 and 30 of word 3 at the top of 64-bit lanes: as sign bits, then the second as a mask.
  const vi exchange = (vi)(w[3] << 1) >> 31;
  const vl topLower = __builtin_convertvector(loadAs<halfInts>(&w[3]), vl) << 32;
  const vl topUpper = __builtin_convertvector(loadAs<halfInts>((const int32_t*)&w[3] + WD), vl) << 32;
  const vl swapLower = __builtin_convertvector(loadAs<halfInts>(&exchange), vl);
  const vl swapUpper = __builtin_convertvector(loadAs<halfInts>((const int32_t*)&exchange + WD), vl);
  constexpr int64_t kSign = INT64_MIN;
  boxMuller(uniformOfParts(uHigh.lower, uLow.lower), angleOfParts(rHigh.lower, rLow.lower), swapLower, topLower & kSign,
            x, y);
  boxMuller(uniformOfParts(uHigh.upper, uLow.upper), angleOfParts(rHigh.upper, rLow.upper), swapUpper, topUpper & kSign,
            x + WD, y + WD);
}

/// The 128 normals of a group, in the order of their elements.
DP_MOE_INLINE void normalsOfGroup(const uint32_t start[16], int64_t group, double z[kNormalsPerGroup]) {
  for (int first = 0; first < kBlocksPerGroup; first += W) {
    vu words[16];
    chachaBlocks(start, static_cast<uint32_t>(group * kBlocksPerGroup + first), words);
    for (int p = 0; p < 4; ++p) {
      double* x = z + 2 * p * kBlocksPerGroup + first;
      normalsOfWords(words + 4 * p, x, x + kBlocksPerGroup);
    }
  }
}

}  // namespace dp_moe::DP_MOE_ISA
