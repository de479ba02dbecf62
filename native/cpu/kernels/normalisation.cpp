#include "kernels/lanes.h"
#include "kernels/normalisation_kernels.h"

// Layer and root-mean-square normalisation. A row stays in cache between its passes, so the cost is one read and one
// write of memory. Sums run over W lanes in order and are joined by the fixed tree of reduceAdd.

namespace dp_moe::DP_MOE_ISA {

namespace {

DP_MOE_INLINE float sumOfRow(const float* x, int64_t d) {
  vf sum = {};
  forVectors(d, [&]<bool full>(int64_t c, int64_t n) { sum += read<full>(x + c, n); });
  return reduceAdd(sum);
}

/// -1 in the first n lanes.
DP_MOE_INLINE vi maskOfFirst(int64_t n) { return lanes() < static_cast<int32_t>(n); }

void layerNorm(const LayerNormParams& p, int64_t begin, int64_t end) {
  const float inverse = 1.0f / static_cast<float>(p.d);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.x.data + r * p.d;
    float* y = p.y.data + r * p.d;
    // Deviations from a first mean give the mean's own rounding error back: a constant row has variance 0, not noise.
    const float guess = sumOfRow(x, p.d) / static_cast<float>(p.d);
    vf sum = {};
    vf squares = {};
    forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
      vf deviation = read<full>(x + c, n) - guess;
      if (!full) deviation = select(maskOfFirst(n), deviation, vf{});
      sum += deviation;
      squares = fma(deviation, deviation, squares);
    });
    const float shift = reduceAdd(sum) * inverse;
    const float mean = guess + shift;
    // max keeps a NaN, which stands second.
    const vf variance = max(vf{}, broadcast(reduceAdd(squares) * inverse - shift * shift));
    const float rstd = (1.0f / sqrt(variance + p.epsilon))[0];
    p.mean.data[r] = mean;
    p.rstd.data[r] = rstd;
    forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
      vf value = (read<full>(x + c, n) - mean) * rstd;
      if (p.weight.data != nullptr) value *= read<full>(p.weight.data + c, n);
      if (p.bias.data != nullptr) value += read<full>(p.bias.data + c, n);
      write<full>(y + c, value, n);
    });
  }
}

void rmsNorm(const RmsNormParams& p, int64_t begin, int64_t end) {
  const float inverse = 1.0f / static_cast<float>(p.d);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.x.data + r * p.d;
    float* y = p.y.data + r * p.d;
    vf squares = {};
    forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
      const vf value = read<full>(x + c, n);
      squares = fma(value, value, squares);
    });
    const float rstd = (1.0f / sqrt(broadcast(reduceAdd(squares) * inverse + p.epsilon)))[0];
    p.rstd.data[r] = rstd;
    forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
      vf value = read<full>(x + c, n) * rstd;
      if (p.weight.data != nullptr) value *= read<full>(p.weight.data + c, n);
      write<full>(y + c, value, n);
    });
  }
}

DP_MOE_INLINE void clearRow(float* y, int64_t d) {
  forVectors(d, [&]<bool full>(int64_t c, int64_t n) { write<full>(y + c, vf{}, n); });
}

/// sum (+)= v.
template <bool full>
DP_MOE_INLINE void addTo(float* sum, vf v, int64_t n) {
  write<full>(sum, read<full>(sum, n) + v, n);
}

/// With n = (x - mean) rstd and g = dy * weight: dx = rstd (g - mean(g) - n mean(g n)).
void layerNormBackward(const LayerNormBackwardParams& p, int64_t begin, int64_t end) {
  const float inverse = 1.0f / static_cast<float>(p.d);
  for (int64_t u = begin; u < end; ++u) {
    float* dWeight = p.dWeight.data != nullptr ? p.dWeight.data + u * p.d : nullptr;
    float* dBias = p.dBias.data != nullptr ? p.dBias.data + u * p.d : nullptr;
    if (dWeight != nullptr) clearRow(dWeight, p.d);
    if (dBias != nullptr) clearRow(dBias, p.d);
    for (int64_t r = p.segmentOffsets.data[u]; r < p.segmentOffsets.data[u + 1]; ++r) {
      const float* x = p.x.data + r * p.d;
      const float* dy = p.dy.data + r * p.d;
      const float mean = p.mean.data[r];
      const float rstd = p.rstd.data[r];
      vf sum = {};
      vf product = {};
      forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
        const vf normal = (read<full>(x + c, n) - mean) * rstd;
        const vf upstream = read<full>(dy + c, n);
        const vf g = p.weight.data != nullptr ? upstream * read<full>(p.weight.data + c, n) : upstream;
        sum += g;
        product = fma(g, normal, product);  // lanes past the row: g is 0
        if (dWeight != nullptr) addTo<full>(dWeight + c, upstream * normal, n);
        if (dBias != nullptr) addTo<full>(dBias + c, upstream, n);
      });
      const float meanOfG = reduceAdd(sum) * inverse;
      const float meanOfProduct = reduceAdd(product) * inverse;
      forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
        const vf normal = (read<full>(x + c, n) - mean) * rstd;
        const vf upstream = read<full>(dy + c, n);
        const vf g = p.weight.data != nullptr ? upstream * read<full>(p.weight.data + c, n) : upstream;
        write<full>(p.dx.data + r * p.d + c, fnma(normal, broadcast(meanOfProduct), g - meanOfG) * rstd, n);
      });
    }
  }
}

/// With n = x rstd and g = dy * weight: dx = rstd (g - n mean(g n)).
void rmsNormBackward(const RmsNormBackwardParams& p, int64_t begin, int64_t end) {
  const float inverse = 1.0f / static_cast<float>(p.d);
  for (int64_t u = begin; u < end; ++u) {
    float* dWeight = p.dWeight.data != nullptr ? p.dWeight.data + u * p.d : nullptr;
    if (dWeight != nullptr) clearRow(dWeight, p.d);
    for (int64_t r = p.segmentOffsets.data[u]; r < p.segmentOffsets.data[u + 1]; ++r) {
      const float* x = p.x.data + r * p.d;
      const float* dy = p.dy.data + r * p.d;
      const float rstd = p.rstd.data[r];
      vf product = {};
      forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
        const vf normal = read<full>(x + c, n) * rstd;
        const vf upstream = read<full>(dy + c, n);
        const vf g = p.weight.data != nullptr ? upstream * read<full>(p.weight.data + c, n) : upstream;
        product = fma(g, normal, product);
        if (dWeight != nullptr) addTo<full>(dWeight + c, upstream * normal, n);
      });
      const float meanOfProduct = reduceAdd(product) * inverse;
      forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
        const vf normal = read<full>(x + c, n) * rstd;
        const vf upstream = read<full>(dy + c, n);
        const vf g = p.weight.data != nullptr ? upstream * read<full>(p.weight.data + c, n) : upstream;
        write<full>(p.dx.data + r * p.d + c, fnma(normal, broadcast(meanOfProduct), g) * rstd, n);
      });
    }
  }
}

}  // namespace

extern const NormalisationKernels normalisationKernels;
const NormalisationKernels normalisationKernels = {
    .layerNorm = layerNorm,
    .layerNormBackward = layerNormBackward,
    .rmsNorm = rmsNorm,
    .rmsNormBackward = rmsNormBackward,
};

}  // namespace dp_moe::DP_MOE_ISA
