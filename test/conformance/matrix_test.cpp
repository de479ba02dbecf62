#include <algorithm>

#include "segments.h"

namespace dp_moe::conformance {

namespace {

/// One product: its operands, and which of the optional ones take part.
struct Product {
  int64_t k;
  int64_t n;
  int64_t groups;
  int64_t groupStride;
  bool transposed;
  bool gathered;
  bool scaled;
  bool biased;
  bool keepsArgument;
  bool accumulate;
  Activation activation;
  std::vector<int32_t> offsets;  // empty: one group of `rows` rows
  int64_t rows;
  std::vector<float> x, rowScale, weight, bias, start;

  std::string name() const {
    return label(rows, " rows, k ", k, ", n ", n, ", groups ", groups, transposed ? ", transposed" : "",
                 gathered ? ", gathered" : "", scaled ? ", scaled" : "", biased ? ", bias" : "",
                 accumulate ? ", accumulated" : "", ", activation ", static_cast<int>(activation));
  }
};

Product randomProduct(Random& random, const std::vector<int32_t>& offsets, int64_t rows, int64_t k, int64_t n,
                      int64_t groups, int64_t groupStride, uint64_t options) {
  const auto option = [&](int bit) { return (options >> bit & 1) != 0; };
  Product product{k,
                  n,
                  groups,
                  groupStride,
                  option(0),
                  option(1),
                  option(2),
                  option(3),
                  option(4),
                  option(5),
                  static_cast<Activation>(options % 6),
                  offsets,
                  rows,
                  {},
                  {},
                  {},
                  {},
                  {}};
  product.x = random.normals(rows * k);
  product.rowScale = random.normals(rows);
  // A large weight repeats a pattern of prime length: drawing it would take longer than the product.
  const auto pattern = random.normals(std::min<int64_t>(groups * n * k, 65537));
  for (int64_t i = 0; i < groups * n * k; ++i)
    product.weight.push_back(pattern[static_cast<size_t>(i) % pattern.size()]);
  product.bias = random.normals(groups * n);
  product.start = random.normals(rows * n);
  return product;
}

/// The product with its operands as T stores them; y is stored as Y.
template <class T, class Y>
Product stored(Product product) {
  product.x = rounded<T>(product.x);
  product.weight = rounded<T>(product.weight);
  product.start = rounded<Y>(product.start);
  return product;
}

struct Outputs {
  std::vector<float> y, preActivation;
};

template <class T, class Y = T>
Outputs run(const Context& context, const Product& p) {
  Random random(11);
  GatheredRows gathered = scattered(random, p.x, p.k);
  // Rows that do not exist may point anywhere.
  if (!p.offsets.empty()) std::fill(gathered.rows.begin() + p.offsets.back(), gathered.rows.end(), -7);
  const auto x = context.tensor<T>(p.gathered ? gathered.x : p.x), weight = context.tensor<T>(p.weight);
  const auto rowScale = context.tensor(p.rowScale), bias = context.tensor(p.bias);
  const auto xRows = context.tensor(gathered.rows), offsets = context.tensor(p.offsets);
  const auto y = p.accumulate ? context.tensor<Y>(p.start) : context.result<Y>(p.rows * p.n);
  const auto argument = context.result<T>(p.rows * p.n);
  MatrixMultiplyParams params{
      x,   xRows,    Input<float>(rowScale), weight,       Input<float>(bias), offsets,     y, argument, p.rows, p.k,
      p.n, p.groups, p.groupStride,          p.transposed, p.accumulate,       p.activation};
  if (!p.gathered) params.xRows = {};
  if (!p.scaled) params.rowScale = {};
  if (!p.biased) params.bias = {};
  if (!p.keepsArgument) params.preActivation = {};
  if (p.offsets.empty()) params.groupOffsets = {};
  context.backend().matrixMultiply(params);
  return {y.floats(), argument.floats()};
}

double activate(Activation kind, double x) {
  constexpr double pi = 3.14159265358979323846;
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::geluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
  }
  return NAN;
}

int64_t firstRow(const Product& p, int64_t group) {
  if (p.offsets.empty()) return group == 0 ? 0 : p.rows;
  return p.offsets[static_cast<size_t>(group * p.groupStride)];
}

/// The arguments of the activation in one row of a group.
std::vector<Sum> argumentsOf(const Product& p, int64_t group, int64_t row) {
  const float* weight = p.weight.data() + group * p.n * p.k;
  const double scale = p.scaled ? p.rowScale[static_cast<size_t>(row)] : 1;
  std::vector<Sum> sums(static_cast<size_t>(p.n));
  for (int64_t i = 0; i < p.k; ++i) {
    const double x = scale * static_cast<double>(p.x[static_cast<size_t>(row * p.k + i)]);
    for (int64_t column = 0; column < p.n; ++column) {
      sums[static_cast<size_t>(column)].add(
          x * static_cast<double>(p.transposed ? weight[column * p.k + i] : weight[i * p.n + column]));
    }
  }
  for (size_t column = 0; p.biased && column < sums.size(); ++column) {
    sums[column].add(static_cast<double>(p.bias[static_cast<size_t>(group * p.n) + column]));
  }
  return sums;
}

struct Reference {
  std::vector<Sum> y, preActivation;
};

template <class T, class Y>
Reference reference(const Product& p) {
  const auto untouched = [&]<class S>(S) {
    return std::vector<Sum>(static_cast<size_t>(p.rows * p.n), {std::is_same_v<S, bfloat16> ? -776. : -777., 0});
  };
  Reference result{untouched(Y{}), untouched(T{})};
  for (size_t i = 0; i < result.y.size() && p.accumulate; ++i) {
    result.y[i] = {static_cast<double>(p.start[i]), 0};
  }
  for (int64_t group = 0; group < p.groups; ++group) {
    for (int64_t row = firstRow(p, group); row < firstRow(p, group + 1); ++row) {
      auto at = static_cast<size_t>(row * p.n);
      for (const Sum& sum : argumentsOf(p, group, row)) {
        if (p.keepsArgument) result.preActivation[at] = sum;
        // No activation is steeper than 1.13, and theirs is an error of its own.
        const double value = activate(p.activation, sum.value);
        result.y[at] = {value, sum.magnitude * 1.13 + 2 * std::abs(value)};
        if (p.accumulate) result.y[at].add(static_cast<double>(p.start[at]));
        ++at;
      }
    }
  }
  return result;
}

/// Runs the product with operands of type T and y of type Y and compares it with its reference. The result's y.
template <class T, class Y = T>
std::vector<float> expectProduct(const Context& context, const Product& product, const std::string& name) {
  const Product p = stored<T, Y>(product);
  const Outputs outputs = run<T, Y>(context, p);
  const std::string types = label(typeName<T>, std::is_same_v<T, Y> ? "" : " to float32");
  const Reference& expected = once(name + types, [&] { return reference<T, Y>(p); });
  expectSums(outputs.preActivation, expected.preActivation, p.k, label("preActivation, ", p.name(), types),
             storageError<T>);
  expectSums(outputs.y, expected.y, p.k, label("y, ", p.name(), types), storageError<Y>);
  context.sameInEveryRun(label(name, ", ", p.name(), types), outputs.y);
  return outputs.y;
}

}  // namespace

CONFORMANCE_TEST(matrixMultiply) {
  const auto sizes = raggedSizes();
  uint64_t options = 0;
  // Below, at and above a slice of k and a block of columns; every option in turn. An emulated device takes every
  // fifth.
  for (const int64_t k : {1, 7, 16, 17, 64, 129, 384, 385, 800}) {
    for (const int64_t n : {1, 3, 8, 15, 16, 17, 31, 33, 63, 64, 65, 129, 256, 257}) {
      if (options++ % context.sized<uint64_t>(1, 5) != 0) continue;
      const int64_t rows = k * n > 60000 ? 19 : sizes[(options - 1) % sizes.size()];
      Random random(options - 1);
      const Product product = randomProduct(random, {}, rows, k, n, 1, 1, (options - 1) * 37);
      expectProduct<float>(context, product, label("ragged ", options));
    }
  }
}

// As large as tiles and pipelines are, and with lines that no 16 bytes divide.
CONFORMANCE_TEST(matrixMultiplyOfBfloat16) {
  context.forEachReal([&]<class T>() {
    if (std::is_same_v<T, float>) return;
    uint64_t options = 0;
    for (const int64_t k : {1, 8, 15, 32, 40, 104, 136, 200}) {
      for (const int64_t n : {1, 8, 24, 63, 64, 72, 129, 136}) {
        const int64_t rows = std::vector<int64_t>{1, 40, 65, 130, 16}[options % 5];
        Random random(options);
        const Product product = randomProduct(random, {}, rows, k, n, 1, 1, options * 37 + options / 8);
        if (options / 3 % 2 == 0) {
          expectProduct<T>(context, product, label("tiles ", options));
        } else {
          expectProduct<T, float>(context, product, label("tiles ", options));
        }
        ++options;
      }
    }
  });
}

CONFORMANCE_TEST(matrixMultiplyInGroups) {
  // Groups of several units each, empty units, an empty group, rows past the last segment.
  const std::vector<int32_t> lengths = {3, 0, 1, 0, 0, 0, 40, 129, 1, 0, 0, 2};
  context.forEachReal([&]<class T>() {
    for (uint64_t options = 0; options < 64; options += context.sized(1, 3)) {
      const bool packed = !std::is_same_v<T, float> && options % 5 < 3;
      const int64_t k = packed ? 40 : options % 2 == 0 ? 17 : 65, n = packed ? 72 : options % 3 == 0 ? 7 : 33;
      Random random(options);
      const auto offsets = offsetsOf(lengths);
      const Product product = randomProduct(random, offsets, offsets.back() + 3, k, n, 4, 3, options);
      expectProduct<T>(context, product, label("groups ", options));
    }
    for (const int64_t rows : {0, 5}) {
      Random random(1);
      expectProduct<T>(context, randomProduct(random, {0, 0, 0}, rows, 17, 7, 2, 1, 0), label("nothing ", rows));
    }
  });
}

// More groups than a warp has lanes, most of them empty.
CONFORMANCE_TEST(matrixMultiplyInManyGroups) {
  std::vector<int32_t> lengths(100, 0);
  for (const auto& [group, rows] : {std::pair{0, 2}, {31, 1}, {32, 67}, {33, 1}, {95, 3}, {99, 2}}) {
    lengths[static_cast<size_t>(group)] = rows;
  }
  context.forEachReal([&]<class T>() {
    for (const uint64_t options : {0, 1}) {
      Random random(options);
      const Product product = randomProduct(random, offsetsOf(lengths), 76, 24, 136, 100, 1, options);
      expectProduct<T>(context, product, label("many groups ", options));
    }
  });
}

CONFORMANCE_TEST(matrixMultiplyOfAWeightInSeveralPasses) {
  Random random(1);
  for (const uint64_t options : {0, 1}) {
    const Product product =
        randomProduct(random, offsetsOf({2, 0, 1, 3, 1, 2, 1, 1}), 12, context.sized(500, 60), 700, 8, 1, options * 35);
    expectProduct<float>(context, product, label("passes ", options));
  }
}

CONFORMANCE_TEST(matrixMultiplyOfAUnitIsItsOwn) {
  const int64_t experts = 3;
  context.forEachReal([&]<class T>() {
    const int64_t k = std::is_same_v<T, float> ? context.sized(400, 100) : 104, n = std::is_same_v<T, float> ? 65 : 72;
    Random random(3);
    const UnitRows own = randomUnit(random, {7, 0, 20}, k, 1);
    const auto settings = settingsOf(own, random, experts, k, 1);
    for (const uint64_t options : {0, 1, 2, 3 + 8, 4 + 16}) {
      if (context.emulated() && std::is_same_v<T, float> && options != 3 + 8) continue;  // it has much to do
      std::vector<float> first;
      for (const Setting& setting : settings) {
        const SegmentBatch batch = assemble(setting.units, experts, k, 1);
        Random same(5);
        Product product = randomProduct(same, batch.offsets, batch.rows(), k, n, experts, batch.units, options);
        Random weights(6);
        product.weight = weights.normals(experts * n * k);
        product.bias = weights.normals(experts * n);
        product.x = batch.x;
        product.rowScale = batch.dy;  // a value per row that moves with it
        const Outputs outputs = run<T>(context, product);
        std::vector<float> mine;
        for (int64_t e = 0; e < experts; ++e) {
          const auto segment = static_cast<size_t>(e * batch.units) + setting.own;
          for (const auto& values : {outputs.y, outputs.preActivation}) {
            const auto rows = rowsOfUnit(values, batch.offsets, segment, n);
            mine.insert(mine.end(), rows.begin(), rows.end());
          }
        }
        const std::string what = label(setting.name, ", options ", options, typeName<T>);
        for (const float value : mine) expect(std::isfinite(value), "a neighbour's value came over, " + what);
        if (first.empty()) first = mine;
        expectSame(mine, first, what);
      }
    }
  });
}

CONFORMANCE_TEST(matrixMultiplyOfNonFiniteValues) {
  context.forEachReal([&]<class T>() {
    for (const bool transposed : {false, true}) {
      for (const int64_t k : {33, 40}) {
        const int64_t n = k == 40 ? 24 : 17;
        Random random(8);
        Product product = randomProduct(random, {0, 5, 9}, 9, k, n, 2, 1, transposed ? 1 : 0);
        product.activation = Activation::none;
        const auto clean = run<T>(context, product).y;
        const int64_t column = 16, last = k - 1;
        product.x[static_cast<size_t>(4 * k + last)] = NAN;  // row 4, the last of group 0
        product.x[static_cast<size_t>(2 * k)] = -INFINITY;
        // An element of group 1's weight.
        product.weight[static_cast<size_t>(k * n + (transposed ? column * k + last : last * n + column))] = INFINITY;
        const auto y = run<T>(context, product).y;
        for (int64_t i = 0; i < 9 * n; ++i) {
          const int64_t row = i / n;
          const bool reached = row == 4 || row == 2 || (row >= 5 && i % n == column);
          const auto at = static_cast<size_t>(i);
          expect(reached ? !std::isfinite(y[at]) : y[at] == clean[at],
                 label("k ", k, typeName<T>, ", row ", row, ", column ", i % n, ": ", y[at]));
        }
      }
    }
  });
}

CONFORMANCE_TEST(matrixMultiplyRefuses) {
  const auto x = context.result<float>(4 * 5), weight = context.result<float>(2 * 3 * 5),
             bias = context.result<float>(2 * 3), y = context.result<float>(4 * 3), scale = context.result<float>(4);
  const auto xRows = context.tensor(std::vector<int32_t>{3, 0, 0, 1}),
             low = context.tensor(std::vector<int32_t>{3, 0, -1, 1}),
             high = context.tensor(std::vector<int32_t>{3, 0, 4, 1}),
             offsets = context.tensor(std::vector<int32_t>{0, 1, 1, 2, 4}),
             falling = context.tensor(std::vector<int32_t>{0, 1, 0, 2, 4}),
             beyond = context.tensor(std::vector<int32_t>{0, 1, 1, 2, 5}),
             negative = context.tensor(std::vector<int32_t>{-1, 1, 1, 2, 4});
  const MatrixMultiplyParams good{x, xRows, scale, weight, bias, offsets, y,     y,
                                  4, 5,     3,     2,      2,    true,    false, Activation::none};
  context.backend().matrixMultiply(good);
  const auto refuses = [&](const char* code, const char* what, auto change) {
    auto params = good;
    change(params);
    expectError(code, [&] { context.backend().matrixMultiply(params); }, what);
  };
  refuses("SHAPE_MISMATCH", "ragged x", [&](auto& p) { p.x.size -= 1; });
  refuses("SHAPE_MISMATCH", "x without xRows", [&](auto& p) { p.xRows = {}, p.x.size -= 5; });
  refuses("SHAPE_MISMATCH", "xRows", [&](auto& p) { p.xRows.size -= 1; });
  refuses("SHAPE_MISMATCH", "rowScale", [&](auto& p) { p.rowScale.size -= 1; });
  refuses("SHAPE_MISMATCH", "weight", [&](auto& p) { p.weight.size -= 15; });
  refuses("SHAPE_MISMATCH", "weight left out", [&](auto& p) { p.weight = {}; });
  refuses("SHAPE_MISMATCH", "bias", [&](auto& p) { p.bias.size -= 3; });
  refuses("SHAPE_MISMATCH", "y", [&](auto& p) { p.y.size -= 1; });
  refuses("SHAPE_MISMATCH", "preActivation", [&](auto& p) { p.preActivation.size -= 1; });
  refuses("SHAPE_MISMATCH", "groupOffsets", [&](auto& p) { p.groupOffsets.size -= 1; });
  refuses("SHAPE_MISMATCH", "groupStride", [&](auto& p) { p.groupStride = 1; });
  for (const auto& wrong : {low, high}) {
    refuses("INVALID_ARGUMENT", "a row out of range", [&](auto& p) { p.xRows = wrong; });
  }
  for (const auto& wrong : {falling, beyond, negative}) {
    refuses("INVALID_ARGUMENT", "offsets", [&](auto& p) { p.groupOffsets = wrong; });
  }
  refuses("INVALID_ARGUMENT", "groups without offsets", [&](auto& p) { p.groupOffsets = {}; });
  refuses("INVALID_ARGUMENT", "k 0", [&](auto& p) { p.k = 0; });
  refuses("INVALID_ARGUMENT", "n 0", [&](auto& p) { p.n = 0; });
  refuses("INVALID_ARGUMENT", "no group", [&](auto& p) { p.groups = 0; });
}

}  // namespace dp_moe::conformance
