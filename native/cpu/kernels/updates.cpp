#include "kernels/lanes.h"
#include "kernels/normals.h"
#include "kernels/update_kernels.h"

// Noise and update in one pass: a group's 128 normals are made as doubles on the stack, then its parameters are read
// and written once. gradient + deviation * z is formed in double and divided there, and rounded once to float.

namespace dp_moe::DP_MOE_ISA {

namespace {

struct NoiseSource {
  uint32_t start[16];
  double deviation;
  double inverseDivisor;
};

template <class P>
NoiseSource noiseSource(const P& p) {
  NoiseSource source = {};
  source.deviation = static_cast<double>(p.noiseDeviation);
  source.inverseDivisor = 1.0 / static_cast<double>(p.divisor);
  if (p.noiseDeviation > 0) {
    chachaState(
        reinterpret_cast<const uint32_t*>(p.key.data),
        {0, purposeWord(RandomPurpose::noise, 0), static_cast<uint32_t>(p.step), static_cast<uint32_t>(p.stream)},
        source.start);
  }
  return source;
}

/// (gradient + deviation * z) / divisor; z null: no noise.
template <bool noisy>
DP_MOE_INLINE vf noisyGradient(vf gradient, const double* z, const NoiseSource& source) {
  vd lower = lowerDoubles(gradient);
  vd upper = upperDoubles(gradient);
  if constexpr (noisy) {
    lower += load(z) * source.deviation;
    upper += load(z + WD) * source.deviation;
  }
  return toFloat(lower * source.inverseDivisor, upper * source.inverseDivisor);
}

template <bool full, class P>
DP_MOE_INLINE void finish(const P& p, int64_t i, int64_t n, vf weight) {
  write<full>(p.weight.data + i, weight, n);
  write<full>(p.gradient.data + i, vf{}, n);
  if (p.average.data != nullptr) {
    const vf average = read<full>(p.average.data + i, n);
    write<full>(p.average.data + i, fma(weight - average, broadcast(p.averageRate), average), n);
  }
}

template <bool full>
DP_MOE_INLINE void step(const NoisySgdParams& p, vf g, int64_t i, int64_t n) {
  vf weight = read<full>(p.weight.data + i, n);
  if (p.velocity.data != nullptr) {
    const vf velocity = fma(read<full>(p.velocity.data + i, n), broadcast(p.momentum), g);
    write<full>(p.velocity.data + i, velocity, n);
    g = p.nesterov ? fma(velocity, broadcast(p.momentum), g) : velocity;
  }
  weight = fnma(weight, broadcast(p.learningRate * p.weightDecay), weight);
  finish<full>(p, i, n, fnma(g, broadcast(p.learningRate), weight));
}

template <bool full>
DP_MOE_INLINE void step(const NoisyAdamParams& p, vf g, int64_t i, int64_t n) {
  vf weight = read<full>(p.weight.data + i, n);
  if (p.coupledDecay) {
    g = fma(weight, broadcast(p.weightDecay), g);
  } else {
    weight = fnma(weight, broadcast(p.learningRate * p.weightDecay), weight);
  }
  const vf first = fma(read<full>(p.firstMoment.data + i, n), broadcast(p.beta1), g * (1.0f - p.beta1));
  const vf second = fma(read<full>(p.secondMoment.data + i, n), broadcast(p.beta2), g * g * (1.0f - p.beta2));
  write<full>(p.firstMoment.data + i, first, n);
  write<full>(p.secondMoment.data + i, second, n);
  const vf corrected = fma(second, broadcast(1.0f / p.correction2), broadcast(-p.noiseVariance));
  const vf deviation = sqrt(max(corrected, broadcast(p.varianceFloor))) + p.epsilon;
  finish<full>(p, i, n, fnma(first / deviation, broadcast(p.learningRate / p.correction1), weight));
}

template <bool noisy, class P>
void updateRange(const P& p, int64_t begin, int64_t end) {
  const NoiseSource source = noiseSource(p);
  alignas(64) double z[kNormalsPerGroup];
  for (int64_t group = begin; group < end; group += kNormalsPerGroup) {
    if constexpr (noisy) normalsOfGroup(source.start, group / kNormalsPerGroup, z);
    const int64_t count = smaller(end - group, kNormalsPerGroup);
    forVectors(count, [&]<bool full>(int64_t j, int64_t n) {
      const vf gradient = read<full>(p.gradient.data + group + j, n);
      step<full>(p, noisyGradient<noisy>(gradient, z + j, source), group + j, n);
    });
  }
}

template <class P>
void update(const P& p, int64_t begin, int64_t end) {
  if (p.noiseDeviation > 0) {
    updateRange<true>(p, begin, end);
  } else {
    updateRange<false>(p, begin, end);
  }
}

void gaussian(const GaussianParams& p, int64_t group, int64_t skip, int64_t count, float* y) {
  uint32_t start[16];
  chachaState(reinterpret_cast<const uint32_t*>(p.key.data),
              {0, purposeWord(RandomPurpose::noise, 0), static_cast<uint32_t>(p.step), static_cast<uint32_t>(p.stream)},
              start);
  alignas(64) double z[kNormalsPerGroup];
  for (int64_t done = 0; done < count; ++group, skip = 0) {
    normalsOfGroup(start, group, z);
    const int64_t take = smaller(count - done, kNormalsPerGroup - skip);
    for (int64_t i = 0; i < take; ++i) y[done + i] = static_cast<float>(z[skip + i]);
    done += take;
  }
}

}  // namespace

extern const UpdateKernels updateKernels;
const UpdateKernels updateKernels = {
    .noisySgd = update<NoisySgdParams>,
    .noisyAdam = update<NoisyAdamParams>,
    .gaussian = gaussian,
};

}  // namespace dp_moe::DP_MOE_ISA
