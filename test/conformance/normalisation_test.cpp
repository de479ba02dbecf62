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

CONFORMANCE_TEST(layerNorm) {
  for (const auto& lengths : unitLengths()) {
    for (const int64_t d : widths()) {
      for (const bool affine : {false, true}) {
        Random random(static_cast<uint64_t>(d));
        const auto offsets = offsetsOf(lengths);
        const int64_t rows = offsets.back();
        const auto units = static_cast<int64_t>(lengths.size());
        auto x = random.normals(rows * d, 2);
        for (float& value : x) value += 3;  // a common part, as hidden states have
        const auto dy = random.normals(rows * d), weight = random.normals(d), bias = random.normals(d);
        const auto xT = context.tensor(x), dyT = context.tensor(dy), weightT = context.tensor(weight),
                   biasT = context.tensor(bias);
        const auto offsetsT = context.tensor(offsets);
        const auto y = context.result<float>(rows * d), mean = context.result<float>(rows),
                   rstd = context.result<float>(rows), dx = context.result<float>(rows * d),
                   dWeight = context.result<float>(units * d), dBias = context.result<float>(units * d);
        const auto weightIn = affine ? Input<float>(weightT) : Input<float>{};
        const auto biasIn = affine ? Input<float>(biasT) : Input<float>{};
        context.backend().layerNorm({xT, weightIn, biasIn, y, mean, rstd, rows, d, 1e-3f});
        context.backend().layerNormBackward(
            {dyT, xT, weightIn, mean, rstd, offsetsT, dx, dWeight, dBias, rows, d, units});
        const auto want = reference(x, dy, affine ? weight : std::vector<float>(), affine ? bias : std::vector<float>(),
                                    offsets, d, true, static_cast<double>(1e-3f));
        const auto name = describe(lengths, d);
        // With d = 1 the variance is 0 and rstd 30: rounding in x - mean shows.
        const double slack = d == 1 ? 1e-4 : 2e-5;
        expectNear(y.values(), want.y, 1e-5, slack, "y, " + name);
        expectNear(mean.values(), want.mean, 1e-6, 1e-6, "mean, " + name);
        expectNear(rstd.values(), want.rstd, 1e-5, 0, "rstd, " + name);
        expectNear(dx.values(), want.dx, 1e-4, slack, "dx, " + name);
        expectNear(dWeight.values(), want.dWeight, 1e-4, 2e-4, "dWeight, " + name);
        expectNear(dBias.values(), want.dBias, 1e-4, 1e-4, "dBias, " + name);
        context.sameInEveryRun(label("layerNorm ", name, affine), y.values());
        context.sameInEveryRun(label("layerNormBackward ", name, affine), dWeight.values());
        const auto alone = context.result<float>(rows * d);
        context.backend().layerNormBackward({dyT, xT, weightIn, mean, rstd, offsetsT, alone, {}, {}, rows, d, units});
        expectSame(alone.values(), dx.values(), "dx without parameter gradients");
      }
    }
  }
}

CONFORMANCE_TEST(rmsNorm) {
  for (const auto& lengths : unitLengths()) {
    for (const int64_t d : widths()) {
      for (const bool affine : {false, true}) {
        Random random(static_cast<uint64_t>(d));
        const auto offsets = offsetsOf(lengths);
        const int64_t rows = offsets.back();
        const auto units = static_cast<int64_t>(lengths.size());
        const auto x = random.normals(rows * d, 2), dy = random.normals(rows * d), weight = random.normals(d);
        const auto xT = context.tensor(x), dyT = context.tensor(dy), weightT = context.tensor(weight);
        const auto offsetsT = context.tensor(offsets);
        const auto y = context.result<float>(rows * d), rstd = context.result<float>(rows),
                   dx = context.result<float>(rows * d), dWeight = context.result<float>(units * d);
        const auto weightIn = affine ? Input<float>(weightT) : Input<float>{};
        context.backend().rmsNorm({xT, weightIn, y, rstd, rows, d, 1e-5f});
        context.backend().rmsNormBackward({dyT, xT, weightIn, rstd, offsetsT, dx, dWeight, rows, d, units});
        const auto want =
            reference(x, dy, affine ? weight : std::vector<float>(), {}, offsets, d, false, static_cast<double>(1e-5f));
        const auto name = describe(lengths, d);
        expectNear(y.values(), want.y, 1e-5, 1e-6, "y, " + name);
        expectNear(rstd.values(), want.rstd, 1e-5, 0, "rstd, " + name);
        // One element per row: dx is the difference of two equal terms, but for epsilon.
        expectNear(dx.values(), want.dx, 1e-4, d == 1 ? 1e-3 : 2e-5, "dx, " + name);
        expectNear(dWeight.values(), want.dWeight, 1e-4, 1e-4, "dWeight, " + name);
        context.sameInEveryRun(label("rmsNorm ", name, affine), dx.values());
      }
    }
  }
}

CONFORMANCE_TEST(normalisationOfAUnitIsItsOwn) {
  Random random(5);
  const int64_t d = 21;
  const auto own = random.normals(7 * d), ownDy = random.normals(7 * d), weight = random.normals(d);
  std::vector<float> first;
  for (const int32_t before : {0, 1, 9}) {
    const std::vector<float> nan(static_cast<size_t>(before * d), NAN);
    const auto x = context.tensor(join<float>({nan, own, random.normals(d)}));
    const auto dy = context.tensor(join<float>({nan, ownDy, random.normals(d)}));
    const auto weightT = context.tensor(weight);
    const auto offsets = context.tensor(offsetsOf({before, 7, 1}));
    const int64_t rows = before + 8;
    const auto y = context.result<float>(rows * d), mean = context.result<float>(rows),
               rstd = context.result<float>(rows), dx = context.result<float>(rows * d),
               dWeight = context.result<float>(3 * d);
    std::vector<float> mine;
    const auto keep = [&](const std::vector<float>& values, int64_t from, int64_t to) {
      mine.insert(mine.end(), values.begin() + from, values.begin() + to);
    };
    context.backend().layerNorm({x, weightT, {}, y, mean, rstd, rows, d, 1e-5f});
    context.backend().layerNormBackward({dy, x, weightT, mean, rstd, offsets, dx, dWeight, {}, rows, d, 3});
    keep(y.values(), before * d, (before + 7) * d);
    keep(dx.values(), before * d, (before + 7) * d);
    keep(dWeight.values(), d, 2 * d);
    context.backend().rmsNorm({x, weightT, y, rstd, rows, d, 1e-5f});
    context.backend().rmsNormBackward({dy, x, weightT, rstd, offsets, dx, dWeight, rows, d, 3});
    keep(y.values(), before * d, (before + 7) * d);
    keep(dx.values(), before * d, (before + 7) * d);
    keep(dWeight.values(), d, 2 * d);
    for (const float value : mine) expect(std::isfinite(value), "a neighbour's NaN came over");
    if (first.empty()) first = mine;
    expectSame(mine, first, "a unit among others");
  }
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
