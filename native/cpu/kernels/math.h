#pragma once

#include "kernels/simd.h"

// Elementary functions on vectors of floats, within 2 ulp (erf 2.5, sigmoid 3; test/conformance/math_test.cpp).
// NaN in, NaN out; a lane never depends on another. The polynomials are minimax fits of our own.

namespace dp_moe::DP_MOE_ISA {

constexpr float kInfinity = __builtin_inff();

DP_MOE_INLINE vi isNan(vf x) { return x != x; }

/// x * 2^n for n in [-252, 252], rounded once: two factors, so that denormals and infinity come out right.
DP_MOE_INLINE vf scaleByPowerOfTwo(vf x, vi n) {
  const vi half = n >> 1;
  return x * asFloat((half + 127) << 23) * asFloat((n - half + 127) << 23);
}

/// e^x: 0 below -104, infinity above 88.73.
DP_MOE_INLINE vf exp(vf x) {
  // Bounds first in min and max: they return their second operand where one is NaN.
  const vf bounded = min(broadcast(89.0f), max(broadcast(-104.0f), x));
  const vi n = roundToInt(bounded * 1.44269504f);
  const vf whole = toFloat(n);
  // ln 2 = 0.693359375 (10 bits, so that whole times it is exact) - 2.12194440e-4.
  vf r = bounded - whole * 0.693359375f;
  r = fma(whole, broadcast(2.12194440e-4f), r);
  vf p = broadcast(0.00139262508315f);
  p = fma(p, r, broadcast(0.00836323288368f));
  p = fma(p, r, broadcast(0.041666554213f));
  p = fma(p, r, broadcast(0.166665766661f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p * r, r, r) + 1.0f;
  return scaleByPowerOfTwo(p, n);
}

/// Natural logarithm of a positive normal float; other values of x give garbage but no trap.
DP_MOE_INLINE vf logPositive(vf x) {
  constexpr int32_t kSqrtHalf = 0x3f3504f3;
  const vi offset = asInt(x) - kSqrtHalf;
  const vi e = offset >> 23;
  const vf f = asFloat((offset & 0x007fffff) + kSqrtHalf) - 1.0f;
  const vf s = f / (f + 2.0f);
  const vf z = s * s;
  vf r = broadcast(0.233309640518f);
  r = fma(r, z, broadcast(0.285508025533f));
  r = fma(r, z, broadcast(0.400001220008f));
  r = fma(r, z, broadcast(0.666666665543f));
  const vf exponent = toFloat(e);
  const vf low = fma(exponent, broadcast(-2.12194440e-4f), -s * (f - z * r));
  return fma(exponent, broadcast(0.693359375f), f + low);
}

DP_MOE_INLINE vf erf(vf x) {
  const vf a = abs(x);
  const vf z = x * x;
  vf p = broadcast(7.87587506269e-5f);
  p = fma(p, z, broadcast(-0.000801686428717f));
  p = fma(p, z, broadcast(0.00518908742343f));
  p = fma(p, z, broadcast(-0.0268542120106f));
  p = fma(p, z, broadcast(0.112835947152f));
  p = fma(p, z, broadcast(-0.376126266667f));
  p = fma(p, z, broadcast(0.128379165848f));
  const vf small = fma(x, p, x);
  // From 1 to 4 a polynomial in -log(1 - erf); beyond 4, erf is 1.
  const vf t = min(broadcast(4.0f), a) - 2.5f;
  vf g = broadcast(-1.63715141459e-6f);
  g = fma(g, t, broadcast(1.33150143973e-5f));
  g = fma(g, t, broadcast(-7.72913761538e-5f));
  g = fma(g, t, broadcast(0.000420122523541f));
  g = fma(g, t, broadcast(-0.00216530354916f));
  g = fma(g, t, broadcast(0.0108585416429f));
  g = fma(g, t, broadcast(0.943893703611f));
  g = fma(g, t, broadcast(5.35268067422f));
  g = fma(g, t, broadcast(7.80681527273f));
  const vf large = copySign(1.0f - exp(-g), x);
  return select(a < 1.0f, small, large);
}

/// tanh: a polynomial up to 0.625, from there (1 - e) / (1 + e) with e = exp(-2 |x|).
DP_MOE_INLINE vf tanh(vf x) {
  const vf a = abs(x);
  const vf z = x * x;
  vf p = broadcast(0.00229280721f);
  p = fma(p, z, broadcast(-0.00834400021f));
  p = fma(p, z, broadcast(0.021768935f));
  p = fma(p, z, broadcast(-0.0539592616f));
  p = fma(p, z, broadcast(0.133333042f));
  p = fma(p, z, broadcast(-0.333333343f));
  const vf small = fma(x * z, p, x);
  const vf e = exp(a * -2.0f);
  const vf large = copySign((1.0f - e) / (e + 1.0f), x);
  return select(a < 0.625f, small, large);
}

DP_MOE_INLINE vf sigmoid(vf x) { return 1.0f / (exp(-x) + 1.0f); }

}  // namespace dp_moe::DP_MOE_ISA
