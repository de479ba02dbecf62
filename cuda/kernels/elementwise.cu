#include "activation.h"
#include "elementwise.h"
#include "real.h"
#include "reductions.h"
#include "row_places.h"
#include "unit_rows.h"

namespace dp_moe {

namespace {

/// y = f(a, b) for this thread's n elements, and the tail one by one. B: whether there is a b.
template <class T, class U, int n, bool B, class F>
DEVICE void mapPack(const ElementsKernelParams& p, F&& f) {
  const T* a = static_cast<const T*>(p.a);
  const T* b = static_cast<const T*>(p.b);
  U* y = static_cast<U*>(p.y);
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * n;
  if (first + n <= p.size) {
    Pack<float, n> values = loadFloats<T, n>(a + first);
    Pack<float, n> others = {};
    if constexpr (B) others = loadFloats<T, n>(b + first);
    for (int i = 0; i < n; ++i) values.value[i] = f(values.value[i], others.value[i]);
    storeFloats<U, n>(y + first, values);
  } else {
    for (int64_t i = first; i < p.size; ++i) y[i] = fromFloat<U>(f(toFloat(a[i]), B ? toFloat(b[i]) : 0.0f));
  }
}

template <class T, class F>
DEVICE void mapOne(const ElementsKernelParams& p, F&& f) {
  mapPack<T, T, kPack<T>, false>(p, [&](float a, float) { return f(a); });
}

template <class T, class F>
DEVICE void mapTwo(const ElementsKernelParams& p, F&& f) {
  mapPack<T, T, kPack<T>, true>(p, f);
}

/// f(c, scale) for each of this thread's packs in its row of [rows, d].
template <int n, class F>
DEVICE void forPacksOfRow(const ActivationRowsKernelParams& p, F&& f) {
  const RowPlace at = rowPlace<n>(p.walk);
  if (!rowExists(p.walk, at.row)) return;
  const float scale = p.rowScale != nullptr ? p.rowScale[at.row] : 1.0f;
  for (int64_t c = at.first; c < p.walk.d; c += at.step) f(at.row * p.walk.d + c, scale);
}

template <class T, int n>
DEVICE void activationBackwardRows(const ActivationRowsKernelParams& p) {
  withActivation(p.activation, [&]<Activation kind>() {
    forPacksOfRow<n>(p, [&](int64_t at, float scale) {
      const Pack<float, n> x = loadFloats<T, n>(static_cast<const T*>(p.x) + at);
      Pack<float, n> dx = loadFloats<T, n>(static_cast<const T*>(p.dy) + at);
      for (int i = 0; i < n; ++i) dx.value[i] = dx.value[i] * scale * differentiate<kind>(x.value[i]).slope;
      storeFloats<T, n>(static_cast<T*>(p.y) + at, dx);
    });
  });
}

template <class T, int n>
DEVICE void gatedActivationRows(const ActivationRowsKernelParams& p) {
  withActivation(p.activation, [&]<Activation kind>() {
    forPacksOfRow<n>(p, [&](int64_t at, float) {
      Pack<float, n> y = loadFloats<T, n>(static_cast<const T*>(p.x) + at);
      const Pack<float, n> up = loadFloats<T, n>(static_cast<const T*>(p.up) + at);
      for (int i = 0; i < n; ++i) y.value[i] = activate<kind>(y.value[i]) * up.value[i];
      storeFloats<T, n>(static_cast<T*>(p.y) + at, y);
    });
  });
}

template <class T, int n>
DEVICE void gatedActivationBackwardRows(const ActivationRowsKernelParams& p) {
  withActivation(p.activation, [&]<Activation kind>() {
    forPacksOfRow<n>(p, [&](int64_t at, float scale) {
      const Pack<float, n> dy = loadFloats<T, n>(static_cast<const T*>(p.dy) + at);
      Pack<float, n> dGate = loadFloats<T, n>(static_cast<const T*>(p.x) + at);
      Pack<float, n> dUp = loadFloats<T, n>(static_cast<const T*>(p.up) + at);
      for (int i = 0; i < n; ++i) {
        const Differential gate = differentiate<kind>(dGate.value[i]);
        const float scaled = dy.value[i] * scale;
        dGate.value[i] = scaled * dUp.value[i] * gate.slope;
        dUp.value[i] = scaled * gate.value;
      }
      storeFloats<T, n>(static_cast<T*>(p.y) + at, dGate);
      storeFloats<T, n>(static_cast<T*>(p.dUp) + at, dUp);
    });
  });
}

/// The n elements from c on of a row of d, zeros past its end.
template <class T, int n>
DEVICE Pack<float, n> loadWithin(const T* row, int64_t c, int64_t d, bool packed) {
  if (packed) return loadFloats<T, n>(row + c);
  Pack<float, n> values = {};
  for (int i = 0; i < n; ++i) {
    if (c + i < d) values.value[i] = toFloat(row[c + i]);
  }
  return values;
}

template <class T>
DEVICE void rowDotBody(const RowDotKernelParams& p) {
  constexpr int n = kPack<T>;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= p.rows || (p.count != nullptr && row >= *p.count)) return;
  const int64_t other = p.bRows != nullptr ? p.bRows[row] : row;
  if (other < 0 || other >= p.bRowCount) {
    report(p.wrongRow, other);
    return;
  }
  const T* a = static_cast<const T*>(p.a) + row * p.d;
  const T* b = static_cast<const T*>(p.b) + other * p.d;
  float sum = 0;
  for (int64_t c = lane * n; c < p.d; c += kWarp * n) {
    const Pack<float, n> left = loadWithin<T, n>(a, c, p.d, p.packed);
    const Pack<float, n> right = loadWithin<T, n>(b, c, p.d, p.packed);
    for (int i = 0; i < n; ++i) sum = fmaf(left.value[i], right.value[i], sum);
  }
  sum = warpSum(sum);
  if (lane == 0) p.y[row] = sum;
}

}  // namespace

KERNEL(cast_float32_float32, ElementsKernelParams) {
  mapPack<float, float, 4, false>(p, [](float x, float) { return x; });
}
KERNEL(cast_float32_bfloat16, ElementsKernelParams) {
  mapPack<float, bfloat16, 8, false>(p, [](float x, float) { return x; });
}
KERNEL(cast_bfloat16_float32, ElementsKernelParams) {
  mapPack<bfloat16, float, 8, false>(p, [](float x, float) { return x; });
}
KERNEL(cast_bfloat16_bfloat16, ElementsKernelParams) {
  mapPack<bfloat16, bfloat16, 8, false>(p, [](float x, float) { return x; });
}

template <class T>
DEVICE void addBody(const ElementsKernelParams& p) {
  if (p.b == nullptr) {
    mapOne<T>(p, [&](float a) { return a * p.first; });
  } else {
    mapTwo<T>(p, [&](float a, float b) { return fmaf(b, p.second, a * p.first); });
  }
}
KERNEL(add_float32, ElementsKernelParams) { addBody<float>(p); }
KERNEL(add_bfloat16, ElementsKernelParams) { addBody<bfloat16>(p); }

template <class T>
DEVICE void multiplyBody(const ElementsKernelParams& p) {
  mapTwo<T>(p, [](float a, float b) { return a * b; });
}
KERNEL(multiply_float32, ElementsKernelParams) { multiplyBody<float>(p); }
KERNEL(multiply_bfloat16, ElementsKernelParams) { multiplyBody<bfloat16>(p); }

/// NaN stays: it is neither below nor above a bound.
template <class T>
DEVICE void clampBody(const ElementsKernelParams& p) {
  mapOne<T>(p, [&](float x) { return x < p.first ? p.first : x > p.second ? p.second : x; });
}
KERNEL(clamp_float32, ElementsKernelParams) { clampBody<float>(p); }
KERNEL(clamp_bfloat16, ElementsKernelParams) { clampBody<bfloat16>(p); }

/// a is dy, b is x.
template <class T>
DEVICE void clampBackwardBody(const ElementsKernelParams& p) {
  mapTwo<T>(p, [&](float dy, float x) { return x < p.first || x > p.second ? 0.0f : x != x ? x : dy; });
}
KERNEL(clampBackward_float32, ElementsKernelParams) { clampBackwardBody<float>(p); }
KERNEL(clampBackward_bfloat16, ElementsKernelParams) { clampBackwardBody<bfloat16>(p); }

template <class T>
DEVICE void activationBody(const ElementsKernelParams& p) {
  withActivation(p.activation, [&]<Activation kind>() { mapOne<T>(p, [](float x) { return activate<kind>(x); }); });
}
KERNEL(activation_float32, ElementsKernelParams) { activationBody<float>(p); }
KERNEL(activation_bfloat16, ElementsKernelParams) { activationBody<bfloat16>(p); }

template <class T>
DEVICE void activationBackwardBody(const ActivationRowsKernelParams& p) {
  p.walk.packed ? activationBackwardRows<T, kPack<T>>(p) : activationBackwardRows<T, 1>(p);
}
KERNEL(activationBackward_float32, ActivationRowsKernelParams) { activationBackwardBody<float>(p); }
KERNEL(activationBackward_bfloat16, ActivationRowsKernelParams) { activationBackwardBody<bfloat16>(p); }

template <class T>
DEVICE void gatedActivationBody(const ActivationRowsKernelParams& p) {
  p.walk.packed ? gatedActivationRows<T, kPack<T>>(p) : gatedActivationRows<T, 1>(p);
}
KERNEL(gatedActivation_float32, ActivationRowsKernelParams) { gatedActivationBody<float>(p); }
KERNEL(gatedActivation_bfloat16, ActivationRowsKernelParams) { gatedActivationBody<bfloat16>(p); }

template <class T>
DEVICE void gatedActivationBackwardBody(const ActivationRowsKernelParams& p) {
  p.walk.packed ? gatedActivationBackwardRows<T, kPack<T>>(p) : gatedActivationBackwardRows<T, 1>(p);
}
KERNEL(gatedActivationBackward_float32, ActivationRowsKernelParams) { gatedActivationBackwardBody<float>(p); }
KERNEL(gatedActivationBackward_bfloat16, ActivationRowsKernelParams) { gatedActivationBackwardBody<bfloat16>(p); }

KERNEL(rowDot_float32, RowDotKernelParams) { rowDotBody<float>(p); }
KERNEL(rowDot_bfloat16, RowDotKernelParams) { rowDotBody<bfloat16>(p); }

}  // namespace dp_moe
