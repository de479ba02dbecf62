#include "kernel.h"
#include "positions.h"
#include "real.h"

// Rotary position embedding.

namespace dp_moe {

namespace {

struct Turn {
  float cosine;
  float sine;
};

/// Cosine and sine of a float32 angle, each within 2 units in the last place: the quarter turns are taken away in
/// float64, where positions times frequencies leave no rounding that shows; the rest has |r| <= pi / 4. (sinf and cosf
/// would keep a table in local memory for large angles.)
DEVICE Turn turnBy(float angle) {
  const double quarters = rint(static_cast<double>(angle) * 0.63661977236758134);
  double rest = fma(-quarters, 1.5707963267948966, static_cast<double>(angle));
  rest = fma(-quarters, 6.123233995736766e-17, rest);
  const auto r = static_cast<float>(rest);
  const float z = r * r;
  float sine = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
  sine = fmaf(sine * z, r, r);
  float cosine = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
  cosine = fmaf(cosine, z * z, fmaf(-0.5f, z, 1.0f));
  const auto quarter = static_cast<int64_t>(quarters) & 3;
  const float c = quarter % 2 == 0 ? cosine : sine;
  const float s = quarter % 2 == 0 ? sine : cosine;
  return {quarter == 1 || quarter == 2 ? -c : c, quarter >= 2 ? -s : s};
}

}  // namespace

template <class T>
DEVICE void rotaryBody(const RotaryKernelParams& p) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = thread / p.half;
  if (row >= p.rows) return;
  const int64_t c = thread % p.half;
  Turn turn = turnBy(static_cast<float>(p.positions[row]) * p.inverseFrequency[c]);
  if (p.inverse) turn.sine = -turn.sine;
  const int64_t first = row * p.heads * 2 * p.half + c;
  const T* x = static_cast<const T*>(p.x) + first;
  T* y = static_cast<T*>(p.y) + first;
  for (int64_t h = 0; h < p.heads; ++h) {
    const int64_t lower = h * 2 * p.half;
    const int64_t upper = lower + p.half;
    const float a = toFloat(x[lower]);
    const float b = toFloat(x[upper]);
    y[lower] = fromFloat<T>(fmaf(a, turn.cosine, -(b * turn.sine)));
    y[upper] = fromFloat<T>(fmaf(b, turn.cosine, a * turn.sine));
  }
}
KERNEL(rotaryEmbedding_float32, RotaryKernelParams) { rotaryBody<float>(p); }
KERNEL(rotaryEmbedding_bfloat16, RotaryKernelParams) { rotaryBody<bfloat16>(p); }

}  // namespace dp_moe
