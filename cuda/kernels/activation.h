#pragma once

#include "kernel.h"
#include "params.h"

namespace dp_moe {

/// A value and its derivative.
struct Differential {
  float value;
  float slope;
};

// The formulas of native/cpu/kernels/activations.h: gelu's tanh form is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)),
// and relu keeps NaN, so that a unit that holds one is seen to be not finite.

DEVICE float sigmoid(float x) { return 1.0f / (expf(-x) + 1.0f); }

/// x^2, at most 10^4: beyond that the sigmoid is 0 or 1 already, and an infinite slope would meet its 0.
DEVICE float boundedSquare(float x) { return x * x < 1e4f ? x * x : 1e4f; }

template <Activation kind>
DEVICE float activate(float x) {
  if constexpr (kind == Activation::relu) return x < 0.0f ? 0.0f : x;
  if constexpr (kind == Activation::gelu) return x * 0.5f * (erff(x * 0.707106781f) + 1.0f);
  if constexpr (kind == Activation::geluTanh) {
    return x * sigmoid(x * fmaf(boundedSquare(x), 0.0713548163f, 1.59576912f));
  }
  if constexpr (kind == Activation::silu) return x * sigmoid(x);
  if constexpr (kind == Activation::tanh) return tanhf(x);
  return x;
}

template <Activation kind>
DEVICE Differential differentiate(float x) {
  if constexpr (kind == Activation::relu) return {activate<kind>(x), x > 0.0f ? 1.0f : x < 0.0f ? 0.0f : x};
  if constexpr (kind == Activation::gelu) {
    const float cumulative = (erff(x * 0.707106781f) + 1.0f) * 0.5f;
    const float density = expf(x * x * -0.5f) * 0.398942280f;
    return {x * cumulative, fmaf(x, density, cumulative)};
  }
  if constexpr (kind == Activation::geluTanh) {
    const float square = boundedSquare(x);
    const float g = sigmoid(x * fmaf(square, 0.0713548163f, 1.59576912f));
    const float innerSlope = fmaf(square, 0.214064449f, 1.59576912f);
    return {x * g, fmaf(x * g * (1.0f - g), innerSlope, g)};
  }
  if constexpr (kind == Activation::silu) {
    const float s = sigmoid(x);
    return {x * s, s * fmaf(x, 1.0f - s, 1.0f)};
  }
  if constexpr (kind == Activation::tanh) {
    const float e = expf(fabsf(x) * -2.0f);
    return {tanhf(x), e * 4.0f / ((e + 1.0f) * (e + 1.0f))};
  }
  return {x, 1.0f};
}

/// f.operator()<kind>() for the activation at hand.
template <class F>
DEVICE void withActivation(Activation kind, F&& f) {
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

}  // namespace dp_moe
