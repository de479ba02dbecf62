#include "normalisation.h"
#include "row_team.h"
#include "unit_rows.h"

// Layer and root-mean-square normalisation. A row stays in cache between the passes over it, so that the cost is one
// read and one write of memory.

namespace dp_moe {

namespace {

template <class Team, class T, int n>
DEVICE void layerNormRow(const NormKernelParams& p, float* parts) {
  const int64_t row = Team::row();
  if (row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x) + row * p.d;
  const float inverse = 1.0f / static_cast<float>(p.d);
  float total = 0;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    const Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    float part = values.value[0];
    for (int i = 1; i < n; ++i) part += values.value[i];
    total += part;
  });
  // Deviations from a first mean give the mean's own rounding error back: a constant row has variance 0, not noise.
  const float guess = Team::sum(total, parts) / static_cast<float>(p.d);
  float sum = 0;
  float squares = 0;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    const Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    float sumPart = 0;
    float squarePart = 0;
    for (int i = 0; i < n; ++i) {
      const float deviation = values.value[i] - guess;
      sumPart += deviation;
      squarePart = fmaf(deviation, deviation, squarePart);
    }
    sum += sumPart;
    squares += squarePart;
  });
  const float shift = Team::sum(sum, parts + kMaxWarps) * inverse;
  const float mean = guess + shift;
  const float variance = Team::sum(squares, parts + 2 * kMaxWarps) * inverse - shift * shift;
  // A NaN stays one.
  const float rstd = 1.0f / sqrtf((variance < 0 ? 0 : variance) + p.epsilon);
  if (Team::rank() == 0) {
    p.mean[row] = mean;
    p.rstd[row] = rstd;
  }
  T* y = static_cast<T*>(p.y) + row * p.d;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    const Pack<float, n> weight = loadOptional<n>(p.weight, c, 1, p.order.aligned);
    const Pack<float, n> bias = loadOptional<n>(p.bias, c, 0, p.order.aligned);
    for (int i = 0; i < n; ++i) {
      values.value[i] = (values.value[i] - mean) * rstd * weight.value[i] + bias.value[i];
    }
    storeElements<T, n>(y + c, values, p.order.aligned);
  });
}

template <class Team, class T, int n>
DEVICE void rmsNormRow(const NormKernelParams& p, float* parts) {
  const int64_t row = Team::row();
  if (row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x) + row * p.d;
  float squares = 0;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    const Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    float part = 0;
    for (int i = 0; i < n; ++i) part = fmaf(values.value[i], values.value[i], part);
    squares += part;
  });
  const float rstd = 1.0f / sqrtf(Team::sum(squares, parts) * (1.0f / static_cast<float>(p.d)) + p.epsilon);
  if (Team::rank() == 0) p.rstd[row] = rstd;
  T* y = static_cast<T*>(p.y) + row * p.d;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    const Pack<float, n> weight = loadOptional<n>(p.weight, c, 1, p.order.aligned);
    for (int i = 0; i < n; ++i) values.value[i] = values.value[i] * rstd * weight.value[i];
    storeElements<T, n>(y + c, values, p.order.aligned);
  });
}

/// With m = (x - mean) rstd and g = dy * weight: dx = rstd (g - mean(g) - m mean(g m)); without a mean, x is not
/// centred and mean(g) plays no part.
template <class Team, class T, int n>
DEVICE void normBackwardRow(const NormBackwardKernelParams& p, float* parts) {
  const int64_t row = Team::row();
  if (row >= p.rows || row < p.segmentOffsets[0] || row >= p.segmentOffsets[p.units]) return;
  const int64_t at = row * p.d;
  const T* x = static_cast<const T*>(p.x) + at;
  const T* dy = static_cast<const T*>(p.dy) + at;
  const bool centred = p.mean != nullptr;
  const float mean = centred ? p.mean[row] : 0.0f;
  const float rstd = p.rstd[row];
  const float inverse = 1.0f / static_cast<float>(p.d);
  float sum = 0;
  float product = 0;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    const Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    const Pack<float, n> upstream = loadElements<T, n>(dy + c, p.order.aligned);
    const Pack<float, n> weight = loadOptional<n>(p.weight, c, 1, p.order.aligned);
    float sumPart = 0;
    float productPart = 0;
    for (int i = 0; i < n; ++i) {
      const float g = upstream.value[i] * weight.value[i];
      sumPart += g;
      productPart = fmaf(g, (values.value[i] - mean) * rstd, productPart);
    }
    sum += sumPart;
    product += productPart;
  });
  const float meanOfProduct = Team::sum(product, parts) * inverse;
  const float meanOfSum = centred ? Team::sum(sum, parts + kMaxWarps) * inverse : 0.0f;
  T* dx = static_cast<T*>(p.dx) + at;
  forPacks<Team, n>(p.d, [&](int64_t c) {
    const Pack<float, n> values = loadElements<T, n>(x + c, p.order.aligned);
    Pack<float, n> result = loadElements<T, n>(dy + c, p.order.aligned);
    const Pack<float, n> weight = loadOptional<n>(p.weight, c, 1, p.order.aligned);
    for (int i = 0; i < n; ++i) {
      const float normal = (values.value[i] - mean) * rstd;
      const float g = result.value[i] * weight.value[i] - meanOfSum;
      result.value[i] = fmaf(-normal, meanOfProduct, g) * rstd;
    }
    storeElements<T, n>(dx + c, result, p.order.aligned);
  });
}

/// Looks at every unit's offsets once.
DEVICE void checkUnits(const NormBackwardKernelParams& p) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t unit = thread; unit < p.units; unit += threads) {
    unitRows(p.segmentOffsets, unit, p.rows, p.wrongOffsets);
  }
}

/// dWeight and dBias of 32 packs of columns of one unit.
template <class T, int n>
DEVICE void parameterGradients(const NormBackwardKernelParams& p, float* partial) {
  constexpr int kWarps = kNormGradientWarps;
  constexpr int64_t kPart = 64 * kWarps;
  const auto warp = static_cast<int>(threadIdx.x / kWarp);
  const auto lane = static_cast<int>(threadIdx.x % kWarp);
  const int64_t blocks = (p.d + kWarp * n - 1) / (kWarp * n);
  const int64_t unit = blockIdx.x / blocks;
  const int64_t c = (blockIdx.x % blocks * kWarp + lane) * n;
  const UnitRows rows = unitRows(p.segmentOffsets, unit, p.rows, p.wrongOffsets);
  const T* x = static_cast<const T*>(p.x) + c;
  const T* dy = static_cast<const T*>(p.dy) + c;
  float sums[2][n] = {};  // of dWeight, of dBias
  if (c < p.d) {
    for (int64_t begin = rows.first; begin < rows.last; begin += kPart) {
      const int64_t end = begin + kPart < rows.last ? begin + kPart : rows.last;
      float part[2][n] = {};
      for (int64_t r = begin + warp; r < end; r += kWarps) {
        const Pack<float, n> values = loadElements<T, n>(x + r * p.d, p.order.aligned);
        const Pack<float, n> upstream = loadElements<T, n>(dy + r * p.d, p.order.aligned);
        const float mean = p.mean != nullptr ? p.mean[r] : 0.0f;
        const float rstd = p.rstd[r];
        for (int i = 0; i < n; ++i) {
          part[0][i] = fmaf(upstream.value[i], (values.value[i] - mean) * rstd, part[0][i]);
          part[1][i] += upstream.value[i];
        }
      }
      for (int i = 0; i < n; ++i) {
        sums[0][i] += part[0][i];
        sums[1][i] += part[1][i];
      }
    }
  }
  const auto place = [&](int w, int k, int i) { return ((w * 2 + k) * n + i) * kWarp + lane; };
  for (int k = 0; k < 2; ++k) {
    for (int i = 0; i < n; ++i) partial[place(warp, k, i)] = sums[k][i];
  }
  __syncthreads();
  if (warp > 0 || c >= p.d) return;
  for (int k = 0; k < 2; ++k) {
    float* to = k == 0 ? p.dWeight : p.dBias;
    if (to == nullptr) continue;
    for (int i = 0; i < n; ++i) {
      float sum = sums[k][i];
      for (int w = 1; w < kWarps; ++w) sum += partial[place(w, k, i)];
      to[unit * p.d + c + i] = sum;
    }
  }
}

}  // namespace

template <class Team, class T>
DEVICE void layerNormBody(const NormKernelParams& p, float* parts) {
  p.order.packed ? layerNormRow<Team, T, kPack<T>>(p, parts) : layerNormRow<Team, T, 1>(p, parts);
}
KERNEL(layerNorm_float32, NormKernelParams) { layerNormBody<WarpTeam, float>(p, nullptr); }
KERNEL(layerNorm_bfloat16, NormKernelParams) { layerNormBody<WarpTeam, bfloat16>(p, nullptr); }
KERNEL_BOUNDS(layerNormWide_float32, NormKernelParams, kBlockThreads, 2) {
  SHARED(float, parts, 3 * kMaxWarps);
  layerNormBody<BlockTeam, float>(p, parts);
}
KERNEL_BOUNDS(layerNormWide_bfloat16, NormKernelParams, kBlockThreads, 2) {
  SHARED(float, parts, 3 * kMaxWarps);
  layerNormBody<BlockTeam, bfloat16>(p, parts);
}

template <class Team, class T>
DEVICE void rmsNormBody(const NormKernelParams& p, float* parts) {
  p.order.packed ? rmsNormRow<Team, T, kPack<T>>(p, parts) : rmsNormRow<Team, T, 1>(p, parts);
}
KERNEL(rmsNorm_float32, NormKernelParams) { rmsNormBody<WarpTeam, float>(p, nullptr); }
KERNEL(rmsNorm_bfloat16, NormKernelParams) { rmsNormBody<WarpTeam, bfloat16>(p, nullptr); }
KERNEL_BOUNDS(rmsNormWide_float32, NormKernelParams, kBlockThreads, 2) {
  SHARED(float, parts, kMaxWarps);
  rmsNormBody<BlockTeam, float>(p, parts);
}
KERNEL_BOUNDS(rmsNormWide_bfloat16, NormKernelParams, kBlockThreads, 2) {
  SHARED(float, parts, kMaxWarps);
  rmsNormBody<BlockTeam, bfloat16>(p, parts);
}

template <class Team, class T>
DEVICE void normBackwardBody(const NormBackwardKernelParams& p, float* parts) {
  checkUnits(p);
  p.order.packed ? normBackwardRow<Team, T, kPack<T>>(p, parts) : normBackwardRow<Team, T, 1>(p, parts);
}
KERNEL(normBackward_float32, NormBackwardKernelParams) { normBackwardBody<WarpTeam, float>(p, nullptr); }
KERNEL(normBackward_bfloat16, NormBackwardKernelParams) { normBackwardBody<WarpTeam, bfloat16>(p, nullptr); }
KERNEL_BOUNDS(normBackwardWide_float32, NormBackwardKernelParams, kBlockThreads, 2) {
  SHARED(float, parts, 2 * kMaxWarps);
  normBackwardBody<BlockTeam, float>(p, parts);
}
KERNEL_BOUNDS(normBackwardWide_bfloat16, NormBackwardKernelParams, kBlockThreads, 2) {
  SHARED(float, parts, 2 * kMaxWarps);
  normBackwardBody<BlockTeam, bfloat16>(p, parts);
}

template <class T>
DEVICE void normGradientsBody(const NormBackwardKernelParams& p, float* partial) {
  p.order.packed ? parameterGradients<T, kNormGradientPack>(p, partial) : parameterGradients<T, 1>(p, partial);
}
KERNEL(normGradients_float32, NormBackwardKernelParams) {
  SHARED(float, partial, kNormGradientWarps * 2 * kNormGradientPack * kWarp);
  normGradientsBody<float>(p, partial);
}
KERNEL(normGradients_bfloat16, NormBackwardKernelParams) {
  SHARED(float, partial, kNormGradientWarps * 2 * kNormGradientPack * kWarp);
  normGradientsBody<bfloat16>(p, partial);
}

}  // namespace dp_moe
