#define DP_MOE_ISA mathTest
#include "kernels/math.h"

#include <cmath>
#include <cstring>

#include "harness.h"

// The vector functions on the plain instruction set (no fused multiply-add: the less exact case); the others are held
// by the tests of the ops. Error in ulp of the result over random arguments, and the special values.

namespace dp_moe::conformance {

namespace {

namespace k = dp_moe::mathTest;

double ulpOf(double value) {
  const auto magnitude = static_cast<float>(std::abs(value));
  if (magnitude < 1.17549435e-38f) return std::ldexp(1.0, -149);
  return static_cast<double>(std::nextafter(magnitude, INFINITY)) - static_cast<double>(magnitude);
}

float call(k::vf (*function)(k::vf), float x) { return function(k::broadcast(x))[k::W - 1]; }

k::vf vectorExp(k::vf x) { return k::exp(x); }
k::vf vectorLog(k::vf x) { return k::logPositive(x); }
k::vf vectorErf(k::vf x) { return k::erf(x); }
k::vf vectorTanh(k::vf x) { return k::tanh(x); }
k::vf vectorSigmoid(k::vf x) { return k::sigmoid(x); }

void holdTo(double maxUlp, const char* name, k::vf (*function)(k::vf), double (*reference)(double), double low,
            double high) {
  Random random(7);
  double worst = 0;
  double worstAt = 0;
  for (int i = 0; i < 200000; ++i) {
    const auto x = static_cast<float>(random.uniform(low, high));
    const double want = reference(static_cast<double>(x));
    const double error = std::abs(static_cast<double>(call(function, x)) - want) / ulpOf(want);
    if (error > worst) {
      worst = error;
      worstAt = static_cast<double>(x);
    }
  }
  expect(worst <= maxUlp,
         std::string(name) + " is " + std::to_string(worst) + " ulp off at " + std::to_string(worstAt));
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

CONFORMANCE_TEST(mathAccuracy) {
  if (context.instructionSet() != "base") return;
  holdTo(1.5, "exp", vectorExp, std::exp, -87, 88);
  holdTo(1.5, "exp near 0", vectorExp, std::exp, -1, 1);
  holdTo(2.0, "exp to denormals", vectorExp, std::exp, -104, -87);
  holdTo(1.5, "log", vectorLog, std::log, 0.9, 1.1);
  holdTo(1.5, "log", vectorLog, std::log, 1, 1e6);
  holdTo(2.5, "erf", vectorErf, std::erf, -1.1, 1.1);
  holdTo(2.5, "erf", vectorErf, std::erf, -5, 5);
  holdTo(2, "tanh", vectorTanh, std::tanh, -0.7, 0.7);
  holdTo(2, "tanh", vectorTanh, std::tanh, -12, 12);
  holdTo(3.0, "sigmoid", vectorSigmoid, sigmoid, -20, 20);
}

CONFORMANCE_TEST(mathSpecialValues) {
  if (context.instructionSet() != "base") return;
  const float inf = INFINITY;
  expect(call(vectorExp, 0) == 1, "exp(0)");
  expect(call(vectorExp, -inf) == 0, "exp(-inf)");
  expect(call(vectorExp, -1e30f) == 0, "exp(-1e30)");
  expect(call(vectorExp, inf) == inf, "exp(inf)");
  expect(call(vectorExp, 88.9f) == inf, "exp(88.9)");
  expect(call(vectorExp, 88.72f) < inf, "exp(88.72)");
  expect(std::isnan(call(vectorExp, NAN)), "exp(NaN)");
  expect(call(vectorLog, 1) == 0, "log(1)");
  expect(call(vectorErf, inf) == 1 && call(vectorErf, -1e30f) == -1 && call(vectorErf, 0) == 0, "erf");
  expect(std::isnan(call(vectorErf, NAN)), "erf(NaN)");
  expect(call(vectorTanh, inf) == 1 && call(vectorTanh, -1e30f) == -1 && call(vectorTanh, 0) == 0, "tanh");
  expect(std::isnan(call(vectorTanh, NAN)), "tanh(NaN)");
  expect(call(vectorSigmoid, 1e30f) == 1 && call(vectorSigmoid, -1e30f) == 0, "sigmoid");
  for (float tiny : {1e-45f, 1e-30f, -1e-20f}) {
    expect(std::abs(call(vectorErf, tiny) - 1.128379f * tiny) <= 1e-6f * std::abs(tiny) + 2e-45f,
           "erf of a tiny number");
  }
}

}  // namespace dp_moe::conformance
