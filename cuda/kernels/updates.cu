#include "random.h"
#include "updates.h"

// Noise and update in one pass over memory: a thread reads its eight elements of every array, makes their normals, and
// writes. gradient + deviation * z is formed in double and divided there, and rounded once to float.

namespace dp_moe::updates {

DEVICE int64_t threadInGrid() { return static_cast<int64_t>(blockIdx.x) * kUpdateThreads + threadIdx.x; }

/// Eight elements of a parameter, 16 apart.
struct Elements {
  int64_t first;
  int64_t size;

  DEVICE int64_t at(int v) const { return first + v * kBlocksPerGroup; }
  DEVICE bool has(int v) const { return at(v) < size; }
  DEVICE void load(float (&values)[kNormalsPerBlock], const float* from) const {
    UNROLL
    for (int v = 0; v < kNormalsPerBlock; ++v) values[v] = has(v) ? from[at(v)] : 0.0f;
  }
};

struct Sgd {
  using Params = NoisySgdParams;
  float velocity[kNormalsPerBlock];

  DEVICE void load(const Params& p, const Elements& elements) {
    if (p.velocity.data != nullptr) elements.load(velocity, p.velocity.data);
  }
  /// The new weight.
  DEVICE float step(const Params& p, float weight, float g, int v, int64_t i) {
    if (p.velocity.data != nullptr) {
      const float moved = fmaf(velocity[v], p.momentum, g);
      p.velocity.data[i] = moved;
      g = p.nesterov ? fmaf(moved, p.momentum, g) : moved;
    }
    weight = fmaf(-weight, p.learningRate * p.weightDecay, weight);
    return fmaf(-g, p.learningRate, weight);
  }
};

struct Adam {
  using Params = NoisyAdamParams;
  float firstMoment[kNormalsPerBlock];
  float secondMoment[kNormalsPerBlock];

  DEVICE void load(const Params& p, const Elements& elements) {
    elements.load(firstMoment, p.firstMoment.data);
    elements.load(secondMoment, p.secondMoment.data);
  }
  DEVICE float step(const Params& p, float weight, float g, int v, int64_t i) {
    if (p.coupledDecay) {
      g = fmaf(weight, p.weightDecay, g);
    } else {
      weight = fmaf(-weight, p.learningRate * p.weightDecay, weight);
    }
    const float first = fmaf(firstMoment[v], p.beta1, g * (1.0f - p.beta1));
    const float second = fmaf(secondMoment[v], p.beta2, g * g * (1.0f - p.beta2));
    p.firstMoment.data[i] = first;
    p.secondMoment.data[i] = second;
    const float corrected = fmaf(second, 1.0f / p.correction2, -p.noiseVariance);
    // A NaN stays one, unlike with fmaxf.
    const float deviation = sqrtf(corrected < p.varianceFloor ? p.varianceFloor : corrected) + p.epsilon;
    return fmaf(-(first / deviation), p.learningRate / p.correction1, weight);
  }
};

template <class Rule, bool noisy>
DEVICE void update(const typename Rule::Params& p) {
  const int64_t block = threadInGrid();
  const Elements elements{elementOf(block, 0), p.size};
  if (!elements.has(0)) return;
  float gradient[kNormalsPerBlock], weight[kNormalsPerBlock];
  Rule rule;
  elements.load(gradient, p.gradient.data);
  elements.load(weight, p.weight.data);
  rule.load(p, elements);
  [[maybe_unused]] uint32_t words[16];
  if constexpr (noisy) noiseWords(p.key.data, p.step, p.stream, block, words);
  const auto deviation = static_cast<double>(p.noiseDeviation);
  const double inverseDivisor = 1.0 / static_cast<double>(p.divisor);
  UNROLL
  for (int pair = 0; pair < kNormalsPerBlock; pair += 2) {
    double z[2];
    if constexpr (noisy) normalsOfWords(words + 2 * pair, z[0], z[1]);
    UNROLL
    for (int n = 0; n < 2; ++n) {
      const int v = pair + n;
      if (!elements.has(v)) continue;
      const int64_t i = elements.at(v);
      auto noisyGradient = static_cast<double>(gradient[v]);
      if constexpr (noisy) noisyGradient += z[n] * deviation;
      const float moved = rule.step(p, weight[v], static_cast<float>(noisyGradient * inverseDivisor), v, i);
      p.weight.data[i] = moved;
      p.gradient.data[i] = 0.0f;
      if (p.average.data != nullptr) {
        const float average = p.average.data[i];
        p.average.data[i] = fmaf(moved - average, p.averageRate, average);
      }
    }
  }
}

template <class Rule>
DEVICE void updateBody(const typename Rule::Params& p) {
  p.noiseDeviation > 0 ? update<Rule, true>(p) : update<Rule, false>(p);
}
KERNEL_BOUNDS(noisySgd, NoisySgdParams, kUpdateThreads, 4) { updateBody<Sgd>(p); }
KERNEL_BOUNDS(noisyAdam, NoisyAdamParams, kUpdateThreads, 4) { updateBody<Adam>(p); }

KERNEL_BOUNDS(gaussian, GaussianParams, kUpdateThreads, 4) {
  const int64_t block = p.first / kNormalsPerGroup * kBlocksPerGroup + threadInGrid();
  if (elementOf(block, 0) >= p.first + p.size) return;
  uint32_t words[16];
  noiseWords(p.key.data, p.step, p.stream, block, words);
  UNROLL
  for (int pair = 0; pair < kNormalsPerBlock; pair += 2) {
    double z[2];
    normalsOfWords(words + 2 * pair, z[0], z[1]);
    UNROLL
    for (int n = 0; n < 2; ++n) {
      const int64_t i = elementOf(block, pair + n) - p.first;
      if (i >= 0 && i < p.size) p.y.data[i] = static_cast<float>(z[n]);
    }
  }
}

}  // namespace dp_moe::updates
