#include <algorithm>
#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

namespace {

double logSumExp(const float* x, int64_t n) {
  const double top = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - top);
  return top + std::log(sum);
}

}  // namespace

namespace {

template <class T>
void checkLosses(const Context& context, int64_t rows, int64_t classes) {
  Random random(static_cast<uint64_t>(classes));
  const auto logits = rounded<T>(random.normals(rows * classes, 4));
  const auto dLoss = random.normals(rows);
  std::vector<int32_t> targets(static_cast<size_t>(rows));
  for (auto& t : targets) t = random.below(static_cast<int32_t>(classes) + 1) - 1;
  const auto logitsT = context.tensor<T>(logits);
  const auto dLossT = context.tensor(dLoss);
  const auto targetsT = context.tensor(targets);
  const auto loss = context.result<float>(rows), lse = context.result<float>(rows);
  const auto dLogits = context.result<T>(rows * classes), y = context.result<T>(rows * classes);
  auto& backend = context.backend();
  backend.crossEntropy({logitsT, targetsT, loss, lse, rows, classes});
  backend.crossEntropyBackward({dLossT, logitsT, targetsT, lse, dLogits, rows, classes});
  backend.softmax({logitsT, y, rows, classes});
  std::vector<double> wantLoss, wantGradient, wantSoftmax;
  for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
    const float* x = logits.data() + r * static_cast<size_t>(classes);
    const double log = logSumExp(x, classes);
    wantLoss.push_back(targets[r] < 0 ? 0 : log - x[targets[r]]);
    for (int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(x[c] - log);
      wantSoftmax.push_back(p);
      wantGradient.push_back(targets[r] < 0 ? 0 : dLoss[r] * (p - (c == targets[r])));
    }
  }
  const auto name = label(rows, " rows, ", classes, " classes, ", nameOf(dtypeOf<T>));
  expectNear(loss.values(), wantLoss, 1e-6, 2e-6, "loss, " + name);
  expectNear(dLogits.floats(), wantGradient, 5e-6 + storageError<T>, 1e-6, "dLogits, " + name);
  expectNear(y.floats(), wantSoftmax, 3e-6 + storageError<T>, 1e-30, "softmax, " + name);
  context.sameInEveryRun("crossEntropy " + name, loss.values());
  context.sameInEveryRun("softmax " + name, y.values());
  backend.crossEntropyBackward({dLossT, logitsT, targetsT, lse, logitsT, rows, classes});
  expectSame(logitsT.values(), dLogits.values(), "dLogits in the place of logits");
}

}  // namespace

CONFORMANCE_TEST(crossEntropy) {
  context.forEachReal([&]<class T>() {
    for (const int64_t classes : {1, 2, 7, 8, 17, 511, 513, 1024, 1025, 3000}) {
      for (const int64_t rows : {0, 1, 13}) checkLosses<T>(context, rows, classes);
    }
    checkLosses<T>(context, 3, 50257);
    checkLosses<T>(context, 1, 262144);
  });
}

CONFORMANCE_TEST(extremeLogits) {
  const float inf = INFINITY;
  const std::vector<float> logits = {1e30f,  0,      -1e30f, 5,     // one class takes all
                                     -inf,   2,      2,      -inf,  // impossible classes
                                     3e38f,  3e38f,  -3e38f, 0,     // near overflow
                                     NAN,    0,      0,      0,     // one bad row
                                     -1e30f, -1e30f, -1e30f, -1e30f};
  const auto logitsT = context.tensor(logits);
  const auto y = context.result<float>(20), loss = context.result<float>(5), lse = context.result<float>(5),
             dLogits = context.result<float>(20), dLoss = context.tensor(std::vector<float>(5, 1));
  const auto targets = context.tensor(std::vector<int32_t>{0, 1, 0, 1, 3});
  context.backend().softmax({logitsT, y, 5, 4});
  context.backend().crossEntropy({logitsT, targets, loss, lse, 5, 4});
  context.backend().crossEntropyBackward({dLoss, logitsT, targets, lse, dLogits, 5, 4});
  const double nan = NAN, half = 0.5, quarter = 0.25;
  expectNear(y.values(),
             {1, 0, 0, 0, 0, half, half, 0, half, half, 0, 0, nan, nan, nan, nan, quarter, quarter, quarter, quarter},
             1e-6, 0, "softmax");
  expectNear(loss.values(), {0, std::log(2), std::log(2), nan, std::log(4)}, 1e-6, 0, "loss");
  auto gradient = dLogits.values();
  // 3e38 + log 2 is 3e38 in float: the third row's gradient cannot be had from logSumExp; it must be finite.
  for (int i = 8; i < 12; ++i) expect(std::isfinite(gradient[static_cast<size_t>(i)]), "a finite gradient");
  for (int i = 0; i < 8; ++i) {
    const double want[8] = {0, 0, 0, 0, 0, -half, half, 0};
    expect(std::abs(gradient[static_cast<size_t>(i)] - want[i]) < 1e-6, label("dLogits ", i));
  }
  const auto impossible = context.tensor(std::vector<int32_t>{0});
  const auto row = context.tensor(std::vector<float>{-inf, 0}), one = context.result<float>(1),
             other = context.result<float>(1);
  context.backend().crossEntropy({row, impossible, one, other, 1, 2});
  expect(one.values()[0] == inf, "the loss of an impossible class");
}

CONFORMANCE_TEST(lossOfARowIsItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const int64_t classes : {77, 1048}) {
      Random random(4);
      const auto own = random.normals(classes, 3);
      std::vector<float> first;
      for (const int64_t before : {0, 1, 40}) {
        const std::vector<float> others(static_cast<size_t>(before * classes), NAN);
        const auto x = context.tensor<T>(join<float>({others, own, random.normals(classes)}));
        const int64_t rows = before + 2;
        const auto targets = context.tensor(std::vector<int32_t>(static_cast<size_t>(rows), 5));
        const auto loss = context.result<float>(rows), lse = context.result<float>(rows);
        const auto y = context.result<T>(rows * classes);
        context.backend().crossEntropy({x, targets, loss, lse, rows, classes});
        context.backend().softmax({x, y, rows, classes});
        std::vector<float> mine = {loss.values()[static_cast<size_t>(before)],
                                   lse.values()[static_cast<size_t>(before)]};
        const auto probabilities = y.floats();
        mine.insert(mine.end(), probabilities.begin() + before * classes,
                    probabilities.begin() + (before + 1) * classes);
        if (first.empty()) first = mine;
        expectSame(mine, first, "the loss of a row among others");
      }
    }
  });
}

CONFORMANCE_TEST(lossesRefuse) {
  auto& backend = context.backend();
  const auto four = context.result<float>(4), two = context.result<float>(2), one = context.result<float>(1);
  for (const int32_t wrong : {-2, 2}) {
    const auto targets = context.tensor(std::vector<int32_t>{0, wrong});
    expectError("INVALID_ARGUMENT", [&] { backend.crossEntropy({four, targets, two, two, 2, 2}); }, "a target");
    expectError(
        "INVALID_ARGUMENT", [&] { backend.crossEntropyBackward({two, four, targets, two, four, 2, 2}); }, "a target");
  }
  const auto targets = context.tensor(std::vector<int32_t>{0, 1});
  expectError("SHAPE_MISMATCH", [&] { backend.crossEntropy({four, targets, one, two, 2, 2}); }, "loss");
  expectError("SHAPE_MISMATCH", [&] { backend.crossEntropyBackward({one, four, targets, two, four, 2, 2}); }, "dLoss");
  expectError("SHAPE_MISMATCH", [&] { backend.softmax({four, two, 2, 2}); }, "y");
  expectError("INVALID_ARGUMENT", [&] { backend.softmax({four, four, 2, 0}); }, "d 0");
}

}  // namespace dp_moe::conformance
