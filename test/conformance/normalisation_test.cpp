#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

namespace {

struct Reference {
  std::vector<double> y, mean, rstd, dx, dWeight, dBias;
};

/// Layer norm (centred) or root-mean-square norm of every row, forward and backward.
Reference reference(const std::vector<float>& x, const std::vector<float>& dy, const std::vector<float>& weight,
                    const std::vector<float>& bias, const std::vector<int32_t>& offsets, int64_t d, bool centred,
                    double epsilon) {
  Reference result;
  const auto n = static_cast<double>(d);
  const size_t units = offsets.size() - 1;
  result.dWeight.resize(units * static_cast<size_t>(d));
  result.dBias.resize(units * static_cast<size_t>(d));
  for (size_t u = 0; u < units; ++u) {
    for (int64_t r = offsets[u]; r < offsets[u + 1]; ++r) {
      const auto at = [&](int64_t c) { return static_cast<size_t>(r * d + c); };
      double mean = 0, square = 0;
      for (int64_t c = 0; c < d && centred; ++c) mean += x[at(c)] / n;
      for (int64_t c = 0; c < d; ++c) square += (x[at(c)] - mean) * (x[at(c)] - mean) / n;
      const double rstd = 1 / std::sqrt(square + epsilon);
      double sum = 0, product = 0;
      for (int64_t c = 0; c < d; ++c) {
        const double normal = (x[at(c)] - mean) * rstd;
        const double w = weight.empty() ? 1 : weight[static_cast<size_t>(c)];
        const double b = bias.empty() ? 0 : bias[static_cast<size_t>(c)];
        result.y.push_back(normal * w + b);
        if (centred) sum += dy[at(c)] * w / n;
        product += dy[at(c)] * w * normal / n;
        result.dWeight[u * static_cast<size_t>(d) + static_cast<size_t>(c)] += dy[at(c)] * normal;
        result.dBias[u * static_cast<size_t>(d) + static_cast<size_t>(c)] += dy[at(c)];
      }
      for (int64_t c = 0; c < d; ++c) {
        const double w = weight.empty() ? 1 : weight[static_cast<size_t>(c)];
        result.dx.push_back(rstd * (dy[at(c)] * w - sum - (x[at(c)] - mean) * rstd * product));
      }
      result.mean.push_back(mean);
      result.rstd.push_back(rstd);
    }
  }
  return result;
}

}  // namespace

namespace {

struct Case {
  std::vector<int32_t> lengths;
  int64_t d;
};

/// Units of all kinds at small widths, few rows at widths where a row takes more than a warp, whole 16-byte accesses or
/// not.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& lengths : unitLengths()) {
    for (const int64_t d : widths()) all.push_back({lengths, d});
  }
  for (const int64_t d : {1024, 1028, 1111, 1544}) all.push_back({{3, 0, 12}, d});
  all.push_back({{1}, 100000});
  return all;
}

template <class T>
void checkLayerNorm(const Context& context, const Case& at, bool affine) {
  const int64_t d = at.d;
  Random random(static_cast<uint64_t>(d));
  const auto offsets = offsetsOf(at.lengths);
  const int64_t rows = offsets.back();
  const auto units = static_cast<int64_t>(at.lengths.size());
  auto x = random.normals(rows * d, 2);
  for (float& value : x) value += 3;  // a common part, as hidden states have
  x = rounded<T>(x);
  const auto dy = rounded<T>(random.normals(rows * d));
  const auto weight = random.normals(d), bias = random.normals(d);
  const auto xT = context.tensor<T>(x), dyT = context.tensor<T>(dy);
  const auto weightT = context.tensor(weight), biasT = context.tensor(bias);
  const auto offsetsT = context.tensor(offsets);
  const auto y = context.result<T>(rows * d), dx = context.result<T>(rows * d);
  const auto mean = context.result<float>(rows), rstd = context.result<float>(rows),
             dWeight = context.result<float>(units * d), dBias = context.result<float>(units * d);
  const auto weightIn = affine ? Input<float>(weightT) : Input<float>{};
  const auto biasIn = affine ? Input<float>(biasT) : Input<float>{};
  context.backend().layerNorm({xT, weightIn, biasIn, y, mean, rstd, rows, d, 1e-3f});
  context.backend().layerNormBackward({dyT, xT, weightIn, mean, rstd, offsetsT, dx, dWeight, dBias, rows, d, units});
  const auto want = reference(x, dy, affine ? weight : std::vector<float>(), affine ? bias : std::vector<float>(),
                              offsets, d, true, static_cast<double>(1e-3f));
  const auto name = label(describe(at.lengths, d), affine ? ", affine, " : ", ", nameOf(dtypeOf<T>));
  // With d = 1 the variance is 0 and rstd 30: rounding in x - mean shows.
  const double slack = d == 1 ? 1e-4 : 2e-5;
  expectNear(y.floats(), want.y, 1e-5 + storageError<T>, slack, "y, " + name);
  expectNear(mean.values(), want.mean, 1e-6, 1e-6, "mean, " + name);
  expectNear(rstd.values(), want.rstd, 1e-5, 0, "rstd, " + name);
  expectNear(dx.floats(), want.dx, 1e-4 + storageError<T>, slack, "dx, " + name);
  expectNear(dWeight.values(), want.dWeight, 1e-4, 2e-4, "dWeight, " + name);
  expectNear(dBias.values(), want.dBias, 1e-4, 1e-4, "dBias, " + name);
  context.sameInEveryRun("layerNorm " + name, y.values());
  context.sameInEveryRun("layerNormBackward " + name, dWeight.values());
  const auto alone = context.result<T>(rows * d);
  context.backend().layerNormBackward({dyT, xT, weightIn, mean, rstd, offsetsT, alone, {}, {}, rows, d, units});
  expectSame(alone.values(), dx.values(), "dx without parameter gradients");
}

template <class T>
void checkRmsNorm(const Context& context, const Case& at, bool affine) {
  const int64_t d = at.d;
  Random random(static_cast<uint64_t>(d));
  const auto offsets = offsetsOf(at.lengths);
  const int64_t rows = offsets.back();
  const auto units = static_cast<int64_t>(at.lengths.size());
  const auto x = rounded<T>(random.normals(rows * d, 2)), dy = rounded<T>(random.normals(rows * d)),
             weight = random.normals(d);
  const auto xT = context.tensor<T>(x), dyT = context.tensor<T>(dy);
  const auto weightT = context.tensor(weight);
  const auto offsetsT = context.tensor(offsets);
  const auto y = context.result<T>(rows * d), dx = context.result<T>(rows * d);
  const auto rstd = context.result<float>(rows), dWeight = context.result<float>(units * d);
  const auto weightIn = affine ? Input<float>(weightT) : Input<float>{};
  context.backend().rmsNorm({xT, weightIn, y, rstd, rows, d, 1e-5f});
  context.backend().rmsNormBackward({dyT, xT, weightIn, rstd, offsetsT, dx, dWeight, rows, d, units});
  const auto want =
      reference(x, dy, affine ? weight : std::vector<float>(), {}, offsets, d, false, static_cast<double>(1e-5f));
  const auto name = label(describe(at.lengths, d), affine ? ", affine, " : ", ", nameOf(dtypeOf<T>));
  expectNear(y.floats(), want.y, 1e-5 + storageError<T>, 1e-6, "y, " + name);
  expectNear(rstd.values(), want.rstd, 1e-5, 0, "rstd, " + name);
  // One element per row: dx is the difference of two equal terms, but for epsilon.
  expectNear(dx.floats(), want.dx, 1e-4 + storageError<T>, d == 1 ? 1e-3 : 2e-5, "dx, " + name);
  expectNear(dWeight.values(), want.dWeight, 1e-4, 1e-4, "dWeight, " + name);
  context.sameInEveryRun("rmsNorm " + name, dx.values());
}

}  // namespace

CONFORMANCE_TEST(layerNorm) {
  context.forEachReal([&]<class T>() {
    for (const Case& at : cases()) {
      for (const bool affine : {false, true}) checkLayerNorm<T>(context, at, affine);
    }
  });
}

CONFORMANCE_TEST(rmsNorm) {
  context.forEachReal([&]<class T>() {
    for (const Case& at : cases()) {
      for (const bool affine : {false, true}) checkRmsNorm<T>(context, at, affine);
    }
  });
}

CONFORMANCE_TEST(normalisationOfAUnitIsItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {21, 64, 1100}) {
      Random random(5);
      const auto own = random.normals(7 * d), ownDy = random.normals(7 * d), weight = random.normals(d);
      std::vector<float> first;
      for (const int32_t before : {0, 1, 9}) {
        const std::vector<float> nan(static_cast<size_t>(before * d), NAN);
        const auto x = context.tensor<T>(join<float>({nan, own, random.normals(d)}));
        const auto dy = context.tensor<T>(join<float>({nan, ownDy, random.normals(d)}));
        const auto weightT = context.tensor(weight);
        const auto offsets = context.tensor(offsetsOf({before, 7, 1}));
        const int64_t rows = before + 8;
        const auto y = context.result<T>(rows * d), dx = context.result<T>(rows * d);
        const auto mean = context.result<float>(rows), rstd = context.result<float>(rows),
                   dWeight = context.result<float>(3 * d);
        std::vector<float> mine;
        const auto keep = [&](const std::vector<float>& values, int64_t from, int64_t to) {
          mine.insert(mine.end(), values.begin() + from, values.begin() + to);
        };
        context.backend().layerNorm({x, weightT, {}, y, mean, rstd, rows, d, 1e-5f});
        context.backend().layerNormBackward({dy, x, weightT, mean, rstd, offsets, dx, dWeight, {}, rows, d, 3});
        keep(y.floats(), before * d, (before + 7) * d);
        keep(dx.floats(), before * d, (before + 7) * d);
        keep(dWeight.values(), d, 2 * d);
        context.backend().rmsNorm({x, weightT, y, rstd, rows, d, 1e-5f});
        context.backend().rmsNormBackward({dy, x, weightT, rstd, offsets, dx, dWeight, rows, d, 3});
        keep(y.floats(), before * d, (before + 7) * d);
        keep(dx.floats(), before * d, (before + 7) * d);
        keep(dWeight.values(), d, 2 * d);
        for (const float value : mine) expect(std::isfinite(value), "a neighbour's NaN came over");
        if (first.empty()) first = mine;
        expectSame(mine, first, "a unit among others");
      }
    }
  });
}

CONFORMANCE_TEST(normalisationBackwardLeavesOtherRows) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {20, 1200}) {
      Random random(8);
      const auto x = context.tensor<T>(random.normals(6 * d)), dy = context.tensor<T>(random.normals(6 * d));
      const auto mean = context.tensor(random.normals(6)), rstd = context.tensor(random.normals(6));
      const auto offsets = context.tensor(std::vector<int32_t>{1, 1, 4});
      const auto dx = context.result<T>(6 * d), untouched = context.result<T>(6 * d);
      const auto dWeight = context.result<float>(2 * d);
      context.backend().layerNormBackward({dy, x, {}, mean, rstd, offsets, dx, dWeight, {}, 6, d, 2});
      const auto values = dx.values(), fresh = untouched.values();
      for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 1}, {4, 6}}) {
        expectSame(std::vector<T>(values.begin() + from * d, values.begin() + to * d),
                   std::vector<T>(fresh.begin() + from * d, fresh.begin() + to * d), "dx of rows of no unit");
      }
      const auto gradient = dWeight.values();
      expectSame(std::vector<float>(gradient.begin(), gradient.begin() + d), std::vector<float>(static_cast<size_t>(d)),
                 "dWeight of an empty unit");
    }
  });
}

CONFORMANCE_TEST(constantRows) {
  // 0.1 is no sum of powers of two: the mean of 100 of them, summed in float, is not 0.1, and epsilon is small.
  for (const float constant : {0.1f, 1000.1f, -3e7f, 0.0f}) {
    const int64_t d = 100;
    const auto x = context.tensor(std::vector<float>(static_cast<size_t>(d), constant));
    const auto bias = context.tensor(std::vector<float>(static_cast<size_t>(d), 0.5f));
    const auto y = context.result<float>(d), mean = context.result<float>(1), rstd = context.result<float>(1);
    context.backend().layerNorm({x, {}, bias, y, mean, rstd, 1, d, 1e-12f});
    expectNear(y.values(), std::vector<double>(static_cast<size_t>(d), 0.5), 0, 0, "a constant row");
    expectNear(mean.values(), {static_cast<double>(constant)}, 0, 0, "its mean");
    expectNear(rstd.values(), {1e6}, 1e-6, 0, "its rstd");
  }
}

CONFORMANCE_TEST(normalisationRefuses) {
  auto& backend = context.backend();
  const auto six = context.result<float>(6), two = context.result<float>(2), three = context.result<float>(3);
  const auto offsets = context.tensor(std::vector<int32_t>{0, 2}), beyond = context.tensor(std::vector<int32_t>{0, 3}),
             falling = context.tensor(std::vector<int32_t>{1, 0});
  backend.layerNorm({six, three, three, six, two, two, 2, 3, 1e-5f});
  expectError("SHAPE_MISMATCH", [&] { backend.layerNorm({six, two, {}, six, two, two, 2, 3, 1e-5f}); }, "weight");
  expectError("SHAPE_MISMATCH", [&] { backend.layerNorm({six, {}, two, six, two, two, 2, 3, 1e-5f}); }, "bias");
  expectError("SHAPE_MISMATCH", [&] { backend.layerNorm({six, {}, {}, six, three, two, 2, 3, 1e-5f}); }, "mean");
  expectError("INVALID_ARGUMENT", [&] { backend.layerNorm({six, {}, {}, six, two, two, 2, 0, 1e-5f}); }, "d 0");
  expectError("SHAPE_MISMATCH", [&] { backend.rmsNorm({six, two, six, two, 2, 3, 1e-5f}); }, "rmsNorm weight");
  const auto call = [&](Input<int32_t> bounds, Output<float> dWeight) {
    return [&backend, &six, &two, bounds, dWeight] {
      backend.layerNormBackward({six, six, {}, two, two, bounds, six, dWeight, {}, 2, 3, 1});
    };
  };
  expectError("INVALID_ARGUMENT", call(beyond, {}), "offsets beyond the rows");
  expectError("INVALID_ARGUMENT", call(falling, {}), "falling offsets");
  expectError("SHAPE_MISMATCH", call(offsets, two), "dWeight");
}

}  // namespace dp_moe::conformance
