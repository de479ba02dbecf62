#pragma once

#include "kernels/lanes.h"
#include "kernels/vector_words.h"
#include "random/gaussian.h"

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

constexpr uint32_t kWordOfTwoTo20 = 0x41300000;  // 2^20 + n 2^-32 has low word n
constexpr uint32_t kWordOfHalf = 0x3fe00000;     // 1/2 + n 2^-53 has low word n

/// Natural logarithm of u in (0, 1].
DP_MOE_INLINE vd logOfUniform(vd u) {
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcd;
  constexpr uint64_t kOne = 0x3ff0000000000000;
  const vul shifted = (vul)u + (kOne - kSqrtHalf);
  const vd exponent = (vd)((shifted >> 52) | UINT64_C(0x4330000000000000)) - (0x1p52 + 1023.0);
  const vd f = (vd)((shifted & UINT64_C(0x000fffffffffffff)) + kSqrtHalf) - 1.0;
  const vd s = f / (f + 2.0);
  const vd z = s * s;
  vd p = z * 0.14617037548791650168 + 0.1533167403016786185;
  p = p * z + 0.18182890556695603528;
  p = p * z + 0.22222211115144161503;
  p = p * z + 0.28571428626095891537;
  p = p * z + 0.39999999999899238978;
  p = p * z + 0.66666666666666696955;
  const vd half = f * f * 0.5;
  // ln 2 in two parts, the first of 32 bits, so that exponent times it is exact.
  const vd low = s * (half + p * z) + exponent * 1.90821492927058770002e-10;
  return exponent * 6.93147180369123816490e-01 - ((half - low) - f);
}

/// sin and cos of pi r / 2 for |r| <= 1/2.
DP_MOE_INLINE vd sinOfQuarter(vd r) {
  const vd z = r * r;
  vd p = z * 5.6339337815378539538e-8 - 3.598643352982309702e-6;
  p = p * z + 0.00016044115074219091052;
  p = p * z - 0.0046817541323409759917;
  p = p * z + 0.079692626246043003134;
  p = p * z - 0.64596409750624431573;
  return r * 1.5707963267948966143 + r * z * p;
}
DP_MOE_INLINE vd cosOfQuarter(vd r) {
  const vd z = r * r;
  vd p = z * -6.3293963449674235121e-9 + 4.7106784055052271063e-7;
  p = p * z - 0.000025202039028029176105;
  p = p * z + 0.00091926027454684461873;
  p = p * z - 0.020863480763340772521;
  p = p * z + 0.25366950790104782321;
  return 1.0 - (z * 1.2337005501361698269 - z * z * p);
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
  // Each difference is exact: the sums are u and r without rounding.
  boxMuller((uHigh.lower - 0x1p20) + (uLow.lower - (0.5 - 0x1p-53)),
            (rHigh.lower - (0x1p20 + 0.5)) + (rLow.lower - 0.5), swapLower, topLower & kSign, x, y);
  boxMuller((uHigh.upper - 0x1p20) + (uLow.upper - (0.5 - 0x1p-53)),
            (rHigh.upper - (0x1p20 + 0.5)) + (rLow.upper - 0.5), swapUpper, topUpper & kSign, x + WD, y + WD);
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
