#pragma once

#include "random/chacha.h"

// The functions behind the normals of gaussian.h, for D = double or a vector of doubles. No fused multiply-add: the
// results are the same bits on every CPU and on CUDA, where the compiler is told not to fuse either.

namespace dp_moe {

/// ln((1 + f) 2^exponent) for 1 + f in [sqrt(1/2), sqrt(2)).
template <class D>
DP_MOE_RANDOM_INLINE D logOfParts(D f, D exponent) {
  const D s = f / (f + 2.0);
  const D z = s * s;
  D p = z * 0.14617037548791650168 + 0.1533167403016786185;
  p = p * z + 0.18182890556695603528;
  p = p * z + 0.22222211115144161503;
  p = p * z + 0.28571428626095891537;
  p = p * z + 0.39999999999899238978;
  p = p * z + 0.66666666666666696955;
  const D half = f * f * 0.5;
  // ln 2 in two parts, the first of 32 bits, so that exponent times it is exact.
  const D low = s * (half + p * z) + exponent * 1.90821492927058770002e-10;
  return exponent * 6.93147180369123816490e-01 - ((half - low) - f);
}

/// sin and cos of pi r / 2 for |r| <= 1/2.
template <class D>
DP_MOE_RANDOM_INLINE D sinOfQuarter(D r) {
  const D z = r * r;
  D p = z * 5.6339337815378539538e-8 - 3.598643352982309702e-6;
  p = p * z + 0.00016044115074219091052;
  p = p * z - 0.0046817541323409759917;
  p = p * z + 0.079692626246043003134;
  p = p * z - 0.64596409750624431573;
  return r * 1.5707963267948966143 + r * z * p;
}
template <class D>
DP_MOE_RANDOM_INLINE D cosOfQuarter(D r) {
  const D z = r * r;
  D p = z * -6.3293963449674235121e-9 + 4.7106784055052271063e-7;
  p = p * z - 0.000025202039028029176105;
  p = p * z + 0.00091926027454684461873;
  p = p * z - 0.020863480763340772521;
  p = p * z + 0.25366950790104782321;
  return 1.0 - (z * 1.2337005501361698269 - z * z * p);
}

/// High words of doubles whose low word n is added to them.
constexpr uint32_t kWordOfTwoTo20 = 0x41300000;  // 2^20 + n 2^-32
constexpr uint32_t kWordOfHalf = 0x3fe00000;     // 1/2 + n 2^-53

/// u and r of gaussian.h from those doubles: each difference is exact, so the sums are u and r without rounding.
template <class D>
DP_MOE_RANDOM_INLINE D uniformOfParts(D high, D low) {
  return (high - 0x1p20) + (low - (0.5 - 0x1p-53));
}
template <class D>
DP_MOE_RANDOM_INLINE D angleOfParts(D high, D low) {
  return (high - (0x1p20 + 0.5)) + (low - 0.5);
}

constexpr uint64_t kBitsOfSqrtHalf = 0x3fe6a09e667f3bcd;
constexpr uint64_t kBitsOfOne = 0x3ff0000000000000;
constexpr uint64_t kFractionBits = 0x000fffffffffffff;
constexpr uint64_t kBitsOfTwoTo52 = 0x4330000000000000;

}  // namespace dp_moe
