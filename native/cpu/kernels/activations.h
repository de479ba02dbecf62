#pragma once

#include "kernels/math.h"
#include "params.h"

namespace dp_moe::DP_MOE_ISA {

/// A value and its derivative.
struct Differential {
  vf value;
  vf slope;
};

// relu keeps NaN, so that a unit that holds one is seen to be not finite.

template <Activation kind>
DP_MOE_INLINE vf activate(vf x) {
  if constexpr (kind == Activation::relu) return select(x < 0.0f, vf{}, x);
  if constexpr (kind == Activation::gelu) return x * 0.5f * (erf(x * 0.707106781f) + 1.0f);
  if constexpr (kind == Activation::geluTanh) {
    const vf inner = x * fma(x * x, broadcast(0.0356774081f), broadcast(0.797884561f));
    return x * 0.5f * (tanh(inner) + 1.0f);
  }
  if constexpr (kind == Activation::silu) return x * sigmoid(x);
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
    const vf square = x * x;
    const vf t = tanh(x * fma(square, broadcast(0.0356774081f), broadcast(0.797884561f)));
    const vf half = (t + 1.0f) * 0.5f;
    const vf innerSlope = fma(square, broadcast(0.107032224f), broadcast(0.797884561f));
    return {x * half, fma(x * 0.5f * (1.0f - t * t), innerSlope, half)};
  }
  if constexpr (kind == Activation::silu) {
    const vf s = sigmoid(x);
    return {x * s, s * fma(x, 1.0f - s, broadcast(1.0f))};
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
    case Activation::none:
      return f.template operator()<Activation::none>();
  }
}

}  // namespace dp_moe::DP_MOE_ISA
