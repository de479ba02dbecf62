#pragma once

#include "kernels/math.h"
#include "params.h"

namespace dp_moe::DP_MOE_ISA {

/// A value and its derivative.
struct Differential {
  vf value;
  vf slope;
};

// (1 + tanh(a)) / 2 = sigmoid(2 a), so the tanh form of gelu is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
// relu keeps NaN, so that a unit that holds one is seen to be not finite.

/// x^2, at most 10^4: beyond that the sigmoid is 0 or 1 already, and an infinite slope would meet its 0.
DP_MOE_INLINE vf boundedSquare(vf x) { return min(broadcast(1e4f), x * x); }

template <Activation kind>
DP_MOE_INLINE vf activate(vf x) {
  if constexpr (kind == Activation::relu) return select(x < 0.0f, vf{}, x);
  if constexpr (kind == Activation::gelu) return x * 0.5f * (erf(x * 0.707106781f) + 1.0f);
  if constexpr (kind == Activation::geluTanh) {
    return x * sigmoid(x * fma(boundedSquare(x), broadcast(0.0713548163f), broadcast(1.59576912f)));
  }
  if constexpr (kind == Activation::silu) return x * sigmoid(x);
  if constexpr (kind == Activation::tanh) return tanh(x);
  return x;
}

template <Activation kind>
DP_MOE_INLINE Differential differentiate(vf x) {
  if constexpr (kind == Activation::relu) {
    return {activate<kind>(x), select(x > 0.0f, broadcast(1.0f), select(isNan(x), x, vf{}))};
  }
  if constexpr (kind == Activation::gelu) {
    const vf cumulative = (erf(x * 0.707106781f) + 1.0f) * 0.5f;
    const vf density = exp(x * x * -0.5f) * 0.398942280f;
    return {x * cumulative, fma(x, density, cumulative)};
  }
  if constexpr (kind == Activation::geluTanh) {
    const vf square = boundedSquare(x);
    const vf g = sigmoid(x * fma(square, broadcast(0.0713548163f), broadcast(1.59576912f)));
    const vf innerSlope = fma(square, broadcast(0.214064449f), broadcast(1.59576912f));
    return {x * g, fma(x * g * (1.0f - g), innerSlope, g)};
  }
  if constexpr (kind == Activation::silu) {
    const vf s = sigmoid(x);
    return {x * s, s * fma(x, 1.0f - s, broadcast(1.0f))};
  }
  if constexpr (kind == Activation::tanh) {
    const vf e = exp(abs(x) * -2.0f);
    const vf sum = e + 1.0f;
    return {tanh(x), e * 4.0f / (sum * sum)};
  }
  return {x, broadcast(1.0f)};
}

/// f.operator()<kind>() for the activation at hand.
template <class F>
DP_MOE_INLINE void withActivation(Activation kind, F&& f) {
  switch (kind) {
    case Activation::relu:
      return f.template operator()<Activation::relu>();
    case Activation::gelu:
      return f.template operator()<Activation::gelu>();
    case Activation::geluTanh:
      return f.template operator()<Activation::geluTanh>();
    case Activation::silu:
      return f.template operator()<Activation::silu>();
    case Activation::tanh:
      return f.template operator()<Activation::tanh>();
    case Activation::none:
      return f.template operator()<Activation::none>();
  }
}

}  // namespace dp_moe::DP_MOE_ISA
