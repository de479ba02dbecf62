#include <limits>

#include "segments.h"

namespace dp_moe::conformance {

namespace {

constexpr double kMargin = 1 - 0x1p-10;
constexpr double kUlp = 0x1p-23;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kStability = 0.01f;

struct Clipped {
  std::vector<float> factor;
  std::vector<double> statistics;
};

Clipped clip(const Context& context, const std::vector<double>& norms, const std::vector<float>& bound, int32_t mode,
             float stability = kStability) {
  const auto groups = static_cast<int64_t>(bound.size()), units = static_cast<int64_t>(norms.size()) / groups;
  const auto normSquared = context.tensor(norms);
  const auto bounds = context.tensor(bound);
  const auto factor = context.result<float>(groups * units);
  const auto statistics = context.tensor(std::vector<double>(static_cast<size_t>(groups * 3), 10));
  context.backend().clipFactors({normSquared, bounds, factor, statistics, groups, units, mode, stability});
  return {factor.values(), statistics.values()};
}

double exactFactor(double norm, double bound, int32_t mode) {
  const double factor = mode == 1  ? bound * kMargin / (norm + static_cast<double>(kStability))
                        : norm > 0 ? std::min(1.0, bound * kMargin / norm)
                                   : 1.0;
  return std::min<double>(factor, std::numeric_limits<float>::max());
}

/// The factor is the exact one, rounded to float32 without exceeding what the bound allows.
void expectFactor(float factor, double normSquared, float bound, int32_t mode) {
  const double norm = std::sqrt(std::max(normSquared, 0.0)),
               exact = exactFactor(norm, static_cast<double>(bound), mode);
  const double product = static_cast<double>(factor) * norm;
  const auto what = label("mode ", mode, ", bound ", bound, ", norm ", norm, ", factor ", factor, ": ");
  expect(std::isfinite(factor) && factor >= 0, what + "no factor");
  expect(product <= static_cast<double>(bound) * kMargin * (1 + kUlp), what + label("the clipped norm is ", product));
  expect(std::abs(static_cast<double>(factor) - exact) <= exact * kUlp + 0x1p-149, what + label("expected ", exact));
}

}  // namespace

CONFORMANCE_TEST(clipFactors) {
  // In groups of two units: {squared norms}, one bound per group; the last unit is of norm 0 in one group.
  const std::vector<double> norms = {4, 0.25, 0, 9, 1e-8, 100, 1, 0, 2};
  const std::vector<float> bounds = {1, 0.5f, 1e3f};
  for (const int32_t mode : {0, 1}) {
    const Clipped clipped = clip(context, norms, bounds, mode);
    for (size_t i = 0; i < norms.size(); ++i) expectFactor(clipped.factor[i], norms[i], bounds[i / 3], mode);
    // Added to what is there: norms above the bound, units that are not finite, the sum of the norms.
    expectNear(clipped.statistics, {11, 10, 12.5, 12, 10, 10 + 3 + 1e-4 + 10, 10, 10, 10 + 1 + std::sqrt(2.0)}, 1e-12,
               0, "statistics");
    context.sameInEveryRun(label("clipFactors ", mode), clipped.factor);
  }
  expect(clip(context, {0.25, 1e-30}, {1}, 0).factor == std::vector<float>{1, 1}, "norms within the bound are kept");
  // At the bound itself the margin shows.
  expectSame(clip(context, {1}, {1}, 0).factor, {static_cast<float>(kMargin)}, "a norm at the bound");
  expectSame(clip(context, {kMargin * kMargin}, {1}, 0).factor, {1.0f}, "a norm at the margin");
}

CONFORMANCE_TEST(clipFactorsAtTheEdges) {
  const std::vector<double> finite = {0,    -0.0, -1e-12, -5.0, 5e-324, 1e-310, 1e-300, 1e-90, 1e-76,  1e-38,
                                      1e38, 1e76, 1e80,   1e88, 1e90,   1e100,  1e200,  1e300, 1.7e308};
  for (const float bound : {0.0f, 1e-45f, 1e-38f, 1e-6f, 1.0f, 1e6f, 3e38f}) {
    for (const int32_t mode : {0, 1}) {
      const Clipped clipped = clip(context, finite, {bound}, mode);
      for (size_t i = 0; i < finite.size(); ++i) {
        expectFactor(clipped.factor[i], finite[i], bound, mode);
      }
    }
  }
  // Not finite in one group: factor 0 in all groups, counted where it is so; the others stay as they are alone.
  for (const double bad : {static_cast<double>(NAN), kInfinity, -kInfinity}) {
    for (const int32_t mode : {0, 1}) {
      const std::vector<double> norms = {4, bad, 9, bad, 1, 16, 25, 1, bad, 0, 2, 3};
      const Clipped clipped = clip(context, norms, {1, 2, 3}, mode);
      for (size_t i = 0; i < norms.size(); ++i) {
        const bool lost = i % 4 == 1 || i % 4 == 3 || i % 4 == 0;
        if (lost) expect(clipped.factor[i] == 0, label("a unit that is not finite has factor ", clipped.factor[i]));
        if (!lost) expectFactor(clipped.factor[i], norms[i], std::vector<float>{1, 2, 3}[i / 4], mode);
      }
      expectNear(clipped.statistics,
                 {12, 12, 15, 12, 10, 10 + 1 + 4 + 5 + 1, 10, 11, 10 + std::sqrt(2.0) + std::sqrt(3.0)}, 1e-12, 0,
                 "statistics with units that are not finite");
    }
  }
  for (const int32_t mode : {0, 1}) {
    expectSame(clip(context, {}, {1}, mode).statistics, {10.0, 10.0, 10.0}, "no units");
    expectSame(clip(context, {}, {1}, mode).factor, {}, "no units");
  }
}

// The promise itself: factor * norm <= bound, for norms of any size and bounds of any size.
CONFORMANCE_TEST(clippedNormsAreWithinTheBound) {
  Random random(1);
  for (const int32_t mode : {0, 1}) {
    std::vector<float> bounds;
    std::vector<double> norms;
    for (int i = 0; i < 100; ++i) {
      bounds.push_back(static_cast<float>(std::pow(10, random.uniform(-30, 30))));
      for (int u = 0; u < 100; ++u) {
        const double bound = static_cast<double>(bounds.back());
        const double norm = u % 2 == 0 ? std::pow(10, random.uniform(-60, 150))         // any size
                                       : bound * (1 + 0x1p-9 * random.uniform(-2, 2));  // at the bound
        norms.push_back(norm * norm);
      }
    }
    const Clipped clipped = clip(context, norms, bounds, mode);
    for (size_t i = 0; i < norms.size(); ++i) {
      expectFactor(clipped.factor[i], norms[i], bounds[i / 100], mode);
    }
  }
}

CONFORMANCE_TEST(clipFactorOfAUnitIsItsOwn) {
  const std::vector<double> others = {0, 1e300, static_cast<double>(NAN), kInfinity, 7};
  for (const int32_t mode : {0, 1}) {
    const auto alone = clip(context, {3, 5}, {1, 2}, mode).factor;
    for (size_t place = 0; place <= others.size(); ++place) {
      std::vector<double> norms;
      for (const double own : {3.0, 5.0}) {
        auto row = others;
        row.insert(row.begin() + static_cast<std::ptrdiff_t>(place), own);
        norms.insert(norms.end(), row.begin(), row.end());
      }
      const auto factor = clip(context, norms, {1, 2}, mode).factor;
      expectSame({factor[place], factor[place + others.size() + 1]}, alone, "a unit's factors among others");
    }
  }
}

// Norm, factor and weighted gradient together: what a unit adds to the sum, in float64, is within the bound.
CONFORMANCE_TEST(clippedGradientsAreWithinTheBound) {
  const int64_t p = 17;
  for (const int64_t d : {7, 64, 129}) {
    for (const double scale : {1e-8, 1e-3, 1.0, 1e4, 1e12}) {
      for (const float mean : {0.0f, 300.0f}) {
        Random random(static_cast<uint64_t>(d));
        SegmentBatch batch = randomBatch(random, {1, 2, 5, 0, 17, 40, 300}, 1, d, p);
        for (float& value : batch.x) value += mean;
        for (float& value : batch.dy) value = static_cast<float>(static_cast<double>(value) * scale);
        const auto dy = context.tensor(batch.dy), x = context.tensor(batch.x);
        const auto offsets = context.tensor(batch.offsets);
        const auto normSquared = context.tensor(std::vector<double>(7));
        const auto tileOf = context.result<int32_t>(7);
        const auto tiles = context.result<float>(7 * p * d);
        auto& backend = context.backend();
        backend.segmentGradientNorms(
            {dy, x, context.none<int32_t>(), offsets, normSquared, tileOf, tiles, batch.rows(), p, d, 7, 7, 7});
        backend.segmentBiasNorms({dy, offsets, normSquared, batch.rows(), p, 7, 7});
        for (const int32_t mode : {0, 1}) {
          for (const float bound : {1e-3f, 1.0f}) {
            const auto factors = clip(context, normSquared.values(), {bound}, mode).factor;
            for (size_t u = 0; u < 7; ++u) {
              std::vector<float> only(7);
              only[u] = factors[u];
              const auto factor = context.tensor(only),
                         gradient = context.tensor(std::vector<float>(static_cast<size_t>(p * d))),
                         biasGradient = context.tensor(std::vector<float>(static_cast<size_t>(p)));
              backend.weightGradient(
                  {dy, x, context.none<int32_t>(), offsets, factor, tileOf, tiles, gradient, batch.rows(), p, d, 7, 7});
              backend.biasGradient({dy, offsets, factor, biasGradient, batch.rows(), p, 7, 7});
              double sum = 0;
              for (const float value : gradient.values())
                sum += static_cast<double>(value) * static_cast<double>(value);
              for (const float value : biasGradient.values()) {
                sum += static_cast<double>(value) * static_cast<double>(value);
              }
              expect(std::sqrt(sum) <= static_cast<double>(bound),
                     label("unit ", u, ", d ", d, ", scale ", scale, ", mean ", mean, ", mode ", mode, ", bound ",
                           bound, ": the clipped gradient's norm is ", std::sqrt(sum)));
            }
          }
        }
      }
    }
  }
}

CONFORMANCE_TEST(clipFactorsRefuse) {
  const auto normSquared = context.tensor(std::vector<double>(6, 1)), statistics = context.result<double>(6);
  const auto bounds = context.tensor(std::vector<float>{1, 2}), factor = context.result<float>(6);
  const ClipFactorsParams good{normSquared, bounds, factor, statistics, 2, 3, 0, kStability};
  context.backend().clipFactors(good);
  const auto refuses = [&](const char* code, const char* what, auto change) {
    auto params = good;
    change(params);
    expectError(code, [&] { context.backend().clipFactors(params); }, what);
  };
  refuses("SHAPE_MISMATCH", "normSquared", [&](auto& p) { p.normSquared.size -= 1; });
  refuses("SHAPE_MISMATCH", "bounds", [&](auto& p) { p.bounds.size -= 1; });
  refuses("SHAPE_MISMATCH", "factor", [&](auto& p) { p.factor.size -= 1; });
  refuses("SHAPE_MISMATCH", "statistics", [&](auto& p) { p.statistics.size -= 1; });
  refuses("SHAPE_MISMATCH", "statistics left out", [&](auto& p) { p.statistics = {}; });
  refuses("INVALID_ARGUMENT", "mode 2", [&](auto& p) { p.mode = 2; });
  refuses("INVALID_ARGUMENT", "mode -1", [&](auto& p) { p.mode = -1; });
  // A bound that bounds nothing, and a stability that leaves a norm of 0 without a factor.
  for (const float wrong : {NAN, INFINITY, -1.0f}) {
    const auto wrongBounds = context.tensor(std::vector<float>{1, wrong});
    refuses("INVALID_ARGUMENT", "a bound", [&](auto& p) { p.bounds = wrongBounds; });
  }
  for (const float wrong : {NAN, INFINITY, -0.01f, 0.0f}) {
    refuses("INVALID_ARGUMENT", "stability", [&](auto& p) { p.mode = 1, p.stability = wrong; });
  }
}

}  // namespace dp_moe::conformance
