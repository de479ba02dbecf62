#include <algorithm>
#include <cmath>

#include "harness.h"
#include "random/gaussian.h"

namespace dp_moe::conformance {

namespace {

const std::vector<int32_t> kKey = {1, -2, 3, -4, 5, -6, 7, -8};
constexpr int64_t kStep = 11;
constexpr int64_t kStream = 4;

double noise(int64_t i) { return gaussianReference(reinterpret_cast<const uint32_t*>(kKey.data()), kStep, kStream, i); }

std::vector<float> squares(std::vector<float> values) {
  for (float& value : values) value = value * value;
  return values;
}

NoisySgdParams sgd(int64_t size) {
  NoisySgdParams p = {};
  p.size = size;
  p.step = kStep;
  p.stream = kStream;
  p.noiseDeviation = 1.5f;
  p.divisor = 32;
  p.learningRate = 0.1f;
  p.weightDecay = 0.01f;
  p.averageRate = 0.05f;
  return p;
}

NoisyAdamParams adam(int64_t size) {
  NoisyAdamParams p = {};
  p.size = size;
  p.step = kStep;
  p.stream = kStream;
  p.noiseDeviation = 1.5f;
  p.divisor = 32;
  p.learningRate = 1e-2f;
  p.beta1 = 0.9f;
  p.beta2 = 0.99f;
  p.correction1 = 0.271f;
  p.correction2 = 0.0297f;
  p.epsilon = 1e-8f;
  p.weightDecay = 0.1f;
  p.averageRate = 0.25f;
  return p;
}

// Sizes below, at and above a vector, a group of 128 and a task.
const std::vector<int64_t> kSizes = {0, 1, 3, 15, 16, 17, 127, 128, 129, 1000, 8192, 8193, 20001};

}  // namespace

CONFORMANCE_TEST(noisySgd) {
  for (const int64_t size : kSizes) {
    for (const float deviation : {0.0f, 1.5f}) {
      for (const int mode : {0, 1, 2}) {  // plain, momentum, Nesterov
        Random random(static_cast<uint64_t>(size) + 1);
        const auto w = random.normals(size), g = random.normals(size, 10), v = random.normals(size),
                   a = random.normals(size);
        const auto weight = context.tensor(w), gradient = context.tensor(g), velocity = context.tensor(v),
                   average = context.tensor(a);
        const auto key = context.tensor(kKey);
        auto p = sgd(size);
        p.key = key;
        p.weight = weight;
        p.gradient = gradient;
        p.average = average;
        if (mode > 0) p.velocity = velocity;
        p.momentum = mode > 0 ? 0.9f : 0.0f;
        p.nesterov = mode == 2;
        p.noiseDeviation = deviation;
        context.backend().noisySgd(p);

        std::vector<double> newWeight, newVelocity, newAverage;
        for (size_t i = 0; i < w.size(); ++i) {
          const double z = deviation > 0 ? noise(static_cast<int64_t>(i)) : 0;
          const double noisy = (g[i] + static_cast<double>(deviation) * z) / 32;
          const double speed = mode > 0 ? 0.9 * v[i] + noisy : 0;
          const double move = mode == 0 ? noisy : mode == 1 ? speed : noisy + 0.9 * speed;
          newVelocity.push_back(mode > 0 ? speed : v[i]);
          newWeight.push_back(w[i] * (1 - 0.1 * 0.01) - 0.1 * move);
          newAverage.push_back(a[i] + 0.05 * (newWeight.back() - a[i]));
        }
        const std::string name = "size " + std::to_string(size) + ", mode " + std::to_string(mode);
        expectNear(weight.values(), newWeight, 1e-6, 1e-6, "weight, " + name);
        expectNear(velocity.values(), newVelocity, 1e-6, 1e-6, "velocity, " + name);
        expectNear(average.values(), newAverage, 1e-6, 1e-6, "average, " + name);
        expectNear(gradient.values(), std::vector<double>(w.size()), 0, 0, "the gradient is zeroed, " + name);
        context.sameInEveryRun("noisySgd " + name + (deviation > 0 ? " noisy" : ""), weight.values());
      }
    }
  }
}

CONFORMANCE_TEST(noisyAdam) {
  for (const int64_t size : kSizes) {
    for (const int mode : {0, 1, 2, 3}) {  // no noise, AdamW, Adam with coupled decay, DP-AdamBC
      Random random(static_cast<uint64_t>(size) + 1);
      const auto w = random.normals(size), g = random.normals(size, 10), m = random.normals(size, 0.1),
                 v = squares(random.normals(size, 0.1)), a = random.normals(size);
      const auto weight = context.tensor(w), gradient = context.tensor(g), first = context.tensor(m),
                 second = context.tensor(v), average = context.tensor(a);
      const auto key = context.tensor(kKey);
      auto p = adam(size);
      p.key = key;
      p.weight = weight;
      p.gradient = gradient;
      p.firstMoment = first;
      p.secondMoment = second;
      p.average = average;
      if (mode == 0) p.noiseDeviation = 0;
      p.coupledDecay = mode == 2;
      if (mode == 3) {
        p.noiseVariance = 0.05f;
        p.varianceFloor = 0.01f;
        p.epsilon = 0;
      }
      context.backend().noisyAdam(p);

      std::vector<double> newWeight, newFirst, newSecond, newAverage;
      for (size_t i = 0; i < w.size(); ++i) {
        const double z = mode > 0 ? noise(static_cast<int64_t>(i)) : 0;
        double step = (g[i] + static_cast<double>(p.noiseDeviation) * z) / 32;
        if (mode == 2) step += 0.1 * w[i];
        newFirst.push_back(0.9 * m[i] + 0.1 * step);
        newSecond.push_back(0.99 * v[i] + 0.01 * step * step);
        const double corrected = newSecond.back() / 0.0297 - static_cast<double>(p.noiseVariance);
        const double deviation = std::sqrt(std::max(corrected, static_cast<double>(p.varianceFloor)));
        const double decayed = mode == 2 ? w[i] : w[i] * (1 - 0.01 * 0.1);
        newWeight.push_back(decayed - 0.01 * (newFirst.back() / 0.271) / (deviation + static_cast<double>(p.epsilon)));
        newAverage.push_back(a[i] + 0.25 * (newWeight.back() - a[i]));
      }
      const std::string name = "size " + std::to_string(size) + ", mode " + std::to_string(mode);
      expectNear(first.values(), newFirst, 1e-6, 1e-7, "first moment, " + name);
      expectNear(second.values(), newSecond, 3e-6, 1e-9, "second moment, " + name);
      expectNear(weight.values(), newWeight, 1e-5, 1e-5, "weight, " + name);
      expectNear(average.values(), newAverage, 1e-5, 1e-5, "average, " + name);
      expectNear(gradient.values(), std::vector<double>(w.size()), 0, 0, "the gradient is zeroed, " + name);
      context.sameInEveryRun("noisyAdam " + name, weight.values());
    }
  }
}

CONFORMANCE_TEST(updatesDrawTheStreamOfGaussian) {
  // Weight 0, rate 1, gradient 0: the update is minus the noise over the divisor, rounded once.
  constexpr int64_t kSize = 3000;
  const auto weight = context.tensor(std::vector<float>(kSize)), gradient = context.tensor(std::vector<float>(kSize));
  auto p = sgd(kSize);
  const auto key = context.tensor(kKey);
  p.key = key;
  p.weight = weight;
  p.gradient = gradient;
  p.learningRate = 1;
  p.weightDecay = 0;
  p.divisor = 1;
  p.noiseDeviation = 1;
  context.backend().noisySgd(p);
  const auto z = context.result<float>(kSize);
  context.backend().gaussian({key, z, 0, kSize, kStep, kStream});
  auto expected = z.values();
  for (float& value : expected) value = 0 - value;
  expectSame(weight.values(), expected, "the noise of an update");
}

CONFORMANCE_TEST(noiseIsAddedBeforeRounding) {
  // Gradients of 2^24 swallow small noise in float; in double the sum is rounded once, to an even neighbour or the
  // next.
  constexpr int64_t kSize = 4096;
  const auto weight = context.tensor(std::vector<float>(kSize));
  const auto gradient = context.tensor(std::vector<float>(kSize, 16777216.0f));
  auto p = sgd(kSize);
  const auto key = context.tensor(kKey);
  p.key = key;
  p.weight = weight;
  p.gradient = gradient;
  p.learningRate = 1;
  p.weightDecay = 0;
  p.divisor = 1;
  context.backend().noisySgd(p);
  std::vector<double> expected;
  for (int64_t i = 0; i < kSize; ++i) {
    expected.push_back(-static_cast<double>(static_cast<float>(16777216.0 + 1.5 * noise(i))));
  }
  expectNear(weight.values(), expected, 0, 0, "gradient plus noise");
}

CONFORMANCE_TEST(updatesRefuse) {
  const auto size4 = context.tensor(std::vector<float>(4)), size3 = context.tensor(std::vector<float>(3));
  const auto key = context.tensor(kKey);
  const auto run = [&](auto change) {
    return [&, change] {
      auto p = sgd(4);
      p.key = key;
      p.weight = size4;
      p.gradient = size4;
      change(p);
      context.backend().noisySgd(p);
    };
  };
  expectError("SHAPE_MISMATCH", run([&](auto& p) { p.weight = size3; }), "weight");
  expectError("SHAPE_MISMATCH", run([&](auto& p) { p.gradient = size3; }), "gradient");
  expectError("SHAPE_MISMATCH", run([&](auto& p) { p.average = size3; }), "average");
  expectError("SHAPE_MISMATCH", run([&](auto& p) { p.momentum = 0.9f; }), "momentum without velocity");
  expectError("SHAPE_MISMATCH", run([&](auto& p) { p.key = {nullptr, 0}; }), "no key");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.noiseDeviation = -1; }), "negative noise");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.noiseDeviation = NAN; }), "NaN noise");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.noiseDeviation = INFINITY; }), "infinite noise");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.divisor = 0; }), "divisor 0");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.divisor = NAN; }), "divisor NaN");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.step = -1; }), "step -1");
  expectError("INVALID_ARGUMENT", run([&](auto& p) { p.stream = INT64_C(1) << 32; }), "stream 2^32");
  auto a = adam(4);
  a.key = key;
  a.weight = size4;
  a.gradient = size4;
  a.firstMoment = size4;
  a.secondMoment = size3;
  expectError("SHAPE_MISMATCH", [&] { context.backend().noisyAdam(a); }, "secondMoment");
  a.secondMoment = size4;
  a.correction2 = 0;
  expectError("INVALID_ARGUMENT", [&] { context.backend().noisyAdam(a); }, "correction 0");
}

}  // namespace dp_moe::conformance
