#include <cmath>
#include <numbers>

#include "batches.h"

namespace dp_moe::conformance {

namespace {

double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::gelu:
      return x * 0.5 * std::erfc(-x / std::numbers::sqrt2);
    case Activation::geluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    default:
      return x;
  }
}

double slope(Activation kind, double x) {
  switch (kind) {
    case Activation::relu:
      return x > 0 ? 1 : 0;
    case Activation::gelu:
      return 0.5 * std::erfc(-x / std::numbers::sqrt2) + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
    case Activation::geluTanh: {
      const double c = std::sqrt(2 / std::numbers::pi);
      const double t = std::tanh(c * (x + 0.044715 * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
    }
    case Activation::silu: {
      const double s = 1 / (1 + std::exp(-x));
      return s * (1 + x * (1 - s));
    }
    case Activation::tanh:
      return 1 / (std::cosh(x) * std::cosh(x));
    default:
      return 1;
  }
}

const std::vector<Activation> kActivations = {Activation::none,     Activation::relu, Activation::gelu,
                                              Activation::geluTanh, Activation::silu, Activation::tanh};

std::string nameOf(Activation kind) { return "activation " + std::to_string(static_cast<int>(kind)); }

}  // namespace

CONFORMANCE_TEST(cast) {
  for (const int64_t size : {1, 7, 64, 40001}) {
    Random random(static_cast<uint64_t>(size));
    auto values = random.normals(size);
    if (size > 7) {
      values[1] = INFINITY, values[2] = -1e-42f, values[3] = 3.4e38f, values[4] = -0.0f;
      values[5] = 1 + 0x1p-8f, values[6] = 1 + 0x1.8p-7f;  // half way: to the even one
    }
    context.forEachReal([&]<class From>() {
      const auto x = context.tensor<From>(values);
      context.forEachReal([&]<class To>() {
        const auto y = context.result<To>(size);
        context.backend().cast({x, y, size});
        expectSame(y.floats(), rounded<To>(rounded<From>(values)), label("cast of ", size));
        expectError(
            "SHAPE_MISMATCH", [&] { context.backend().cast({x, y, size + 1}); }, "a size that is not the operands'");
      });
    });
  }
}

CONFORMANCE_TEST(addAndMultiply) {
  context.forEachReal([&]<class T>() {
    for (const int64_t size : {0, 1, 7, 16, 33, 16384, 40000}) {
      Random random(static_cast<uint64_t>(size));
      const auto a = rounded<T>(random.normals(size)), b = rounded<T>(random.normals(size));
      const auto aT = context.tensor<T>(a), bT = context.tensor<T>(b), sum = context.result<T>(size),
                 scaled = context.result<T>(size), product = context.result<T>(size);
      context.backend().add({aT, bT, sum, size, 2.0f, -0.5f});
      context.backend().add({aT, {}, scaled, size, 3.0f, 9.0f});
      context.backend().multiply({aT, bT, product, size});
      std::vector<double> wantSum, wantScaled, wantProduct;
      for (size_t i = 0; i < a.size(); ++i) {
        wantSum.push_back(2.0 * a[i] - 0.5 * b[i]);
        wantScaled.push_back(3.0 * a[i]);
        wantProduct.push_back(static_cast<double>(a[i]) * b[i]);
      }
      expectNear(sum.floats(), wantSum, 1e-6 + storageError<T>, 1e-6, "add");
      expectNear(scaled.floats(), wantScaled, 1e-7 + storageError<T>, 0, "add without b");
      expectNear(product.floats(), wantProduct, 1e-7 + storageError<T>, 0, "multiply");
      context.backend().add({aT, bT, aT, size, 2.0f, -0.5f});
      expectSame(aT.values(), sum.values(), "add into a");
    }
  });
  const auto three = context.tensor(std::vector<float>(3)), four = context.result<float>(4);
  expectError("SHAPE_MISMATCH", [&] { context.backend().add({three, {}, four, 4, 1, 1}); }, "a");
  expectError("SHAPE_MISMATCH", [&] { context.backend().add({four, three, four, 4, 1, 1}); }, "b");
  expectError("SHAPE_MISMATCH", [&] { context.backend().multiply({four, three, four, 4}); }, "multiply");
}

CONFORMANCE_TEST(clamp) {
  context.forEachReal([&]<class T>() {
    for (const int64_t size : {0, 1, 7, 33, 20000}) {
      Random random(static_cast<uint64_t>(size));
      auto x = rounded<T>(random.normals(size, 2));
      const auto dy = rounded<T>(random.normals(size));
      if (size > 2) x[0] = -1, x[1] = 1.5f, x[2] = INFINITY;
      std::vector<double> want, wantBackward;
      for (size_t i = 0; i < x.size(); ++i) {
        want.push_back(std::fmin(1.5, std::fmax(-1, x[i])));
        wantBackward.push_back(x[i] >= -1 && x[i] <= 1.5f ? dy[i] : 0);
      }
      const auto xT = context.tensor<T>(x), dyT = context.tensor<T>(dy), y = context.result<T>(size),
                 dx = context.result<T>(size);
      context.backend().clamp({xT, y, size, -1, 1.5f});
      context.backend().clampBackward({dyT, xT, dx, size, -1, 1.5f});
      expectNear(y.floats(), want, 0, 0, "clamp");
      expectNear(dx.floats(), wantBackward, 0, 0, "clampBackward");
    }
  });
  const auto nan = context.tensor(std::vector<float>{1, NAN, 3}), y = context.result<float>(3);
  context.backend().clamp({nan, y, 3, -1, 1});
  expect(std::isnan(y.values()[1]) && y.values()[2] == 1, "clamp of NaN");
  context.backend().clampBackward({y, nan, y, 3, -1, 1});
  expect(std::isnan(y.values()[1]), "clampBackward of NaN");
  const auto two = context.result<float>(2);
  expectError("SHAPE_MISMATCH", [&] { context.backend().clamp({y, two, 3, -1, 1}); }, "y");
  expectError("INVALID_ARGUMENT", [&] { context.backend().clamp({y, y, 3, 1, -1}); }, "bounds");
  expectError("SHAPE_MISMATCH", [&] { context.backend().clampBackward({y, y, two, 3, -1, 1}); }, "dx");
}

CONFORMANCE_TEST(activations) {
  context.forEachReal([&]<class T>() {
    for (const Activation kind : kActivations) {
      Random random(3);
      auto x = random.normals(context.sized(5000, 1000), 3);
      for (const float special : {0.0f, -0.0f, 1e-30f, -1e-30f, 30.0f, -30.0f, 1e30f, 1e-45f}) x.push_back(special);
      x = rounded<T>(x);
      const auto size = static_cast<int64_t>(x.size());
      const auto xT = context.tensor<T>(x), y = context.result<T>(size);
      context.backend().activation({xT, y, size, kind});
      std::vector<double> expected;
      for (const float value : x) expected.push_back(activate(kind, static_cast<double>(value)));
      // Where 1 + erf or 1 + tanh cancels, the error is that of a float near 1 times x.
      expectNear(y.floats(), expected, 6e-7 + storageError<T>, 4e-7, nameOf(kind));
      context.sameInEveryRun(label(nameOf(kind), nameOf(dtypeOf<T>)), y.values());

      const auto nan = context.tensor<T>(std::vector<float>{1, NAN, 2}), out = context.result<T>(3);
      context.backend().activation({nan, out, 3, kind});
      const auto values = out.floats();
      expect(std::isnan(values[1]) && std::isfinite(values[0]) && std::isfinite(values[2]), nameOf(kind) + " of NaN");
    }
  });
  const auto x = context.tensor(std::vector<float>(3)), y = context.result<float>(4);
  expectError("SHAPE_MISMATCH", [&] { context.backend().activation({x, y, 4, Activation::relu}); }, "x");
  expectError("INVALID_ARGUMENT", [&] { context.backend().activation({y, y, 4, static_cast<Activation>(9)}); }, "kind");
}

CONFORMANCE_TEST(activationGradients) {
  context.forEachReal([&]<class T>() {
    for (const Activation kind : kActivations) {
      for (const int64_t d : widths()) {
        for (const bool scaled : {false, true}) {
          Random random(static_cast<uint64_t>(d));
          const int64_t rows = 37, count = 30;
          const auto dy = rounded<T>(random.normals(rows * d)), x = rounded<T>(random.normals(rows * d, 2)),
                     up = rounded<T>(random.normals(rows * d)), scale = random.normals(rows);
          const auto dyT = context.tensor<T>(dy), xT = context.tensor<T>(x), upT = context.tensor<T>(up);
          const auto scaleT = context.tensor(scale);
          const auto countT = context.tensor(std::vector<int32_t>{static_cast<int32_t>(count)});
          const Input<float> scaleIn = scaled ? Input<float>(scaleT) : Input<float>{};
          const auto dx = context.result<T>(rows * d), y = context.result<T>(rows * d),
                     dGate = context.result<T>(rows * d), dUp = context.result<T>(rows * d);
          auto& backend = context.backend();
          backend.activationBackward({dyT, xT, scaleIn, countT, dx, rows, d, kind});
          backend.gatedActivation({xT, upT, countT, y, rows, d, kind});
          backend.gatedActivationBackward({dyT, xT, upT, scaleIn, countT, dGate, dUp, rows, d, kind});
          const std::vector<double> untouched(static_cast<size_t>(rows * d), -777);
          auto wantDx = untouched, wantY = untouched, wantGate = untouched, wantUp = untouched;
          for (int64_t i = 0; i < count * d; ++i) {
            const auto at = static_cast<size_t>(i);
            const double s = scaled ? scale[static_cast<size_t>(i / d)] : 1;
            const double value = activate(kind, x[at]), gradient = slope(kind, x[at]);
            wantDx[at] = s * dy[at] * gradient;
            wantY[at] = value * up[at];
            wantGate[at] = s * dy[at] * up[at] * gradient;
            wantUp[at] = s * dy[at] * value;
          }
          expectNear(dx.floats(), wantDx, 3e-6 + storageError<T>, 3e-6, nameOf(kind) + " backward");
          expectNear(y.floats(), wantY, 3e-6 + storageError<T>, 1e-6, "gated " + nameOf(kind));
          expectNear(dGate.floats(), wantGate, 3e-6 + storageError<T>, 3e-6, "gated backward, gate, " + nameOf(kind));
          expectNear(dUp.floats(), wantUp, 3e-6 + storageError<T>, 3e-6, "gated backward, up, " + nameOf(kind));
        }
      }
    }
  });
  const auto four = context.result<float>(4), three = context.tensor(std::vector<float>(3));
  auto& backend = context.backend();
  const auto silu = Activation::silu;
  expectError("SHAPE_MISMATCH", [&] { backend.activationBackward({four, three, {}, {}, four, 2, 2, silu}); }, "x");
  expectError(
      "SHAPE_MISMATCH", [&] { backend.activationBackward({four, four, three, {}, four, 2, 2, silu}); }, "scale");
  expectError("SHAPE_MISMATCH", [&] { backend.gatedActivation({four, three, {}, four, 2, 2, silu}); }, "up");
  expectError(
      "SHAPE_MISMATCH", [&] { backend.gatedActivationBackward({four, four, four, {}, {}, four, three, 2, 2, silu}); },
      "dUp");
  // Arguments far out: the slope is 0 or 1, never NaN.
  for (const Activation kind : kActivations) {
    const auto far = context.tensor(std::vector<float>{1e30f, -1e30f, 1e10f, -1e10f});
    const auto one = context.tensor(std::vector<float>(4, 1.0f));
    backend.activationBackward({one, far, {}, {}, four, 4, 1, kind});
    const double low = kind == Activation::none ? 1 : 0;
    const double high = kind == Activation::tanh ? 0 : 1;
    expectNear(four.values(), {high, low, high, low}, 0, 0, nameOf(kind) + " far out");
  }
  // No rows at all.
  const auto empty = context.result<float>(0);
  backend.activationBackward({empty, empty, {}, {}, empty, 0, 8, silu});
  backend.gatedActivation({empty, empty, {}, empty, 0, 8, silu});
}

CONFORMANCE_TEST(activationsOfARowAreItsOwn) {
  // The same row at other places of a batch, with other neighbours, gives the same bits.
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {19, 32}) {
      Random random(8);
      const auto own = random.normals(d, 2);
      for (const Activation kind : kActivations) {
        std::vector<float> first;
        for (const int32_t before : {0, 1, 5}) {
          const auto x =
              join<float>({std::vector<float>(static_cast<size_t>(before * d), NAN), own, random.normals(d)});
          const auto xT = context.tensor<T>(x);
          const auto size = static_cast<int64_t>(x.size());
          const auto y = context.result<T>(size), gated = context.result<T>(size), dx = context.result<T>(size);
          context.backend().activation({xT, y, size, kind});
          context.backend().gatedActivation({xT, xT, {}, gated, before + 2, d, kind});
          context.backend().activationBackward({xT, xT, {}, {}, dx, before + 2, d, kind});
          std::vector<float> mine;
          for (const auto& values : {y.floats(), gated.floats(), dx.floats()}) {
            mine.insert(mine.end(), values.begin() + before * d, values.begin() + (before + 1) * d);
          }
          if (first.empty()) first = mine;
          expectSame(mine, first, nameOf(kind) + " of a row among others");
        }
      }
    }
  });
}

CONFORMANCE_TEST(oneDtypeForAll) {
  context.forEachReal([&]<class T>() {
    if constexpr (std::is_same_v<T, bfloat16>) {
      const auto half = context.result<T>(4);
      const auto full = context.result<float>(4);
      auto& backend = context.backend();
      expectError("SHAPE_MISMATCH", [&] { backend.add({half, full, half, 4, 1, 1}); }, "add");
      expectError("SHAPE_MISMATCH", [&] { backend.multiply({half, half, full, 4}); }, "multiply");
      expectError("SHAPE_MISMATCH", [&] { backend.activation({full, half, 4, Activation::relu}); }, "activation");
      const auto index = context.tensor(std::vector<int32_t>{0, 1});
      expectError("SHAPE_MISMATCH", [&] { backend.gatherRows({half, index, {}, {}, full, 2, 2}); }, "gatherRows");
    }
  });
}

CONFORMANCE_TEST(rowDotOfARowIsItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {7, 64, 300}) {
      Random random(4);
      const auto own = random.normals(d);
      std::vector<float> first;
      for (const int32_t before : {0, 1, 9}) {
        const auto x = join<float>({std::vector<float>(static_cast<size_t>(before * d), NAN), own});
        const auto xT = context.tensor<T>(x);
        const auto y = context.result<float>(before + 1);
        context.backend().rowDot({xT, xT, {}, {}, y, before + 1, d});
        const std::vector<float> mine = {y.values().back()};
        if (first.empty()) first = mine;
        expectSame(mine, first, "the dot product of a row among others");
      }
    }
  });
}

CONFORMANCE_TEST(rowDot) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : widths()) {
      for (const bool indexed : {false, true}) {
        Random random(static_cast<uint64_t>(d));
        const int64_t rows = 50, count = 44;
        const auto a = rounded<T>(random.normals(rows * d)), b = rounded<T>(random.normals(rows * d));
        std::vector<int32_t> index(static_cast<size_t>(rows), -5);
        for (int64_t r = 0; r < count; ++r) index[static_cast<size_t>(r)] = random.below(static_cast<int32_t>(rows));
        const auto aT = context.tensor<T>(a), bT = context.tensor<T>(b);
        const auto y = context.result<float>(rows);
        const auto indexT = context.tensor(index),
                   countT = context.tensor(std::vector<int32_t>{0, static_cast<int32_t>(count)});
        context.backend().rowDot({aT, bT, indexed ? Input<int32_t>(indexT) : Input<int32_t>{}, countT, y, rows, d});
        std::vector<double> expected(static_cast<size_t>(rows), -777);
        for (int64_t r = 0; r < count; ++r) {
          const int64_t other = indexed ? index[static_cast<size_t>(r)] : r;
          double sum = 0;
          for (int64_t c = 0; c < d; ++c) {
            sum += static_cast<double>(a[static_cast<size_t>(r * d + c)]) * b[static_cast<size_t>(other * d + c)];
          }
          expected[static_cast<size_t>(r)] = sum;
        }
        expectNear(y.values(), expected, 1e-5, 1e-5, "rowDot, d " + std::to_string(d));
        context.sameInEveryRun(label("rowDot ", d, indexed, nameOf(dtypeOf<T>)), y.values());
      }
    }
  });
  const auto a = context.tensor(std::vector<float>(4)), y = context.result<float>(2);
  const auto index = context.tensor(std::vector<int32_t>{0, 2});
  expectError("INVALID_ARGUMENT", [&] { context.backend().rowDot({a, a, index, {}, y, 2, 2}); }, "a wrong row of b");
  expectError("SHAPE_MISMATCH", [&] { context.backend().rowDot({a, a, {}, {}, y, 2, 3}); }, "a");
}

}  // namespace dp_moe::conformance
