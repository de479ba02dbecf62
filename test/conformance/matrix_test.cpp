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

struct Outputs {
  std::vector<float> y, preActivation;
};

Outputs run(const Context& context, const Product& p) {
  Random random(11);
  const GatheredRows gathered = scattered(random, p.x, p.k);
  const auto x = context.tensor(p.gathered ? gathered.x : p.x), rowScale = context.tensor(p.rowScale),
             weight = context.tensor(p.weight), bias = context.tensor(p.bias);
  const auto xRows = context.tensor(gathered.rows), offsets = context.tensor(p.offsets);
  const auto y = p.accumulate ? context.tensor(p.start) : context.result<float>(p.rows * p.n);
  const auto argument = context.result<float>(p.rows * p.n);
  MatrixMultiplyParams params{
      x,   xRows, rowScale, weight,        bias,         offsets,      y,           argument, p.rows,
      p.k, p.n,   p.groups, p.groupStride, p.transposed, p.accumulate, p.activation};
  if (!p.gathered) params.xRows = {};
  if (!p.scaled) params.rowScale = {};
  if (!p.biased) params.bias = {};
  if (!p.keepsArgument) params.preActivation = {};
  if (p.offsets.empty()) params.groupOffsets = {};
  context.backend().matrixMultiply(params);
  return {y.values(), argument.values()};
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

Reference reference(const Product& p) {
  const std::vector<Sum> untouched(static_cast<size_t>(p.rows * p.n), {-777, 0});
  Reference result{untouched, untouched};
  for (size_t i = 0; i < untouched.size() && p.accumulate; ++i) {
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

void expectProduct(const Outputs& outputs, const Product& p, const std::string& name) {
  const Reference& expected = once(name, [&] { return reference(p); });
  expectSums(outputs.preActivation, expected.preActivation, p.k, "preActivation, " + p.name());
  expectSums(outputs.y, expected.y, p.k, "y, " + p.name());
}

}  // namespace

CONFORMANCE_TEST(matrixMultiply) {
  const auto sizes = raggedSizes();
  uint64_t options = 0;
  // Below, at and above a slice of k and a block of columns; every option in turn.
  for (const int64_t k : {1, 7, 16, 17, 64, 129, 384, 385, 800}) {
    for (const int64_t n : {1, 3, 8, 15, 16, 17, 31, 33, 63, 64, 65, 129, 256, 257}) {
      const int64_t rows = k * n > 60000 ? 19 : sizes[options % sizes.size()];
      Random random(options);
      const Product product = randomProduct(random, {}, rows, k, n, 1, 1, options * 37);
      const Outputs outputs = run(context, product);
      expectProduct(outputs, product, label("ragged ", options));
      context.sameInEveryRun("product " + product.name(), outputs.y);
      ++options;
    }
  }
}

CONFORMANCE_TEST(matrixMultiplyInGroups) {
  // Groups of several units each, empty units, an empty group, rows past the last segment.
  const std::vector<int32_t> lengths = {3, 0, 1, 0, 0, 0, 40, 129, 1, 0, 0, 2};
  for (uint64_t options = 0; options < 64; ++options) {
    const int64_t k = options % 2 == 0 ? 17 : 65, n = options % 3 == 0 ? 7 : 33;
    Random random(options);
    const auto offsets = offsetsOf(lengths);
    const Product product = randomProduct(random, offsets, offsets.back() + 3, k, n, 4, 3, options);
    const Outputs outputs = run(context, product);
    expectProduct(outputs, product, label("groups ", options));
    context.sameInEveryRun("groups " + product.name(), outputs.y);
  }
  for (const int64_t rows : {0, 5}) {
    Random random(1);
    const Product nothing = randomProduct(random, {0, 0, 0}, rows, 17, 7, 2, 1, 0);
    expectProduct(run(context, nothing), nothing, label("nothing ", rows));
  }
}

CONFORMANCE_TEST(matrixMultiplyOfAWeightInSeveralPasses) {
  Random random(1);
  for (const uint64_t options : {0, 1}) {
    const Product product =
        randomProduct(random, offsetsOf({2, 0, 1, 3, 1, 2, 1, 1}), 12, 500, 700, 8, 1, options * 35);
    expectProduct(run(context, product), product, label("passes ", options));
  }
}

CONFORMANCE_TEST(matrixMultiplyOfAUnitIsItsOwn) {
  const int64_t experts = 3, k = 400, n = 65;
  Random random(3);
  const UnitRows own = randomUnit(random, {7, 0, 20}, k, 1);
  const auto settings = settingsOf(own, random, experts, k, 1);
  for (const uint64_t options : {0, 1, 2, 3 + 8, 4 + 16}) {
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
      const Outputs outputs = run(context, product);
      std::vector<float> mine;
      for (int64_t e = 0; e < experts; ++e) {
        const auto segment = static_cast<size_t>(e * batch.units) + setting.own;
        for (const auto& values : {outputs.y, outputs.preActivation}) {
          const auto rows = rowsOfUnit(values, batch.offsets, segment, n);
          mine.insert(mine.end(), rows.begin(), rows.end());
        }
      }
      for (const float value : mine) expect(std::isfinite(value), "a neighbour's value came over, " + setting.name);
      if (first.empty()) first = mine;
      expectSame(mine, first, label(setting.name, ", options ", options));
    }
  }
}

CONFORMANCE_TEST(matrixMultiplyOfNonFiniteValues) {
  for (const bool transposed : {false, true}) {
    Random random(8);
    Product product = randomProduct(random, {0, 5, 9}, 9, 33, 17, 2, 1, transposed ? 1 : 0);
    product.activation = Activation::none;
    const auto clean = run(context, product).y;
    product.x[4 * 33 + 32] = NAN;  // row 4, the last of group 0
    product.x[2 * 33 + 0] = -INFINITY;
    const int64_t column = 16, last = 32;  // an element of group 1's weight
    product.weight[static_cast<size_t>(33 * 17 + (transposed ? column * 33 + last : last * 17 + column))] = INFINITY;
    const auto y = run(context, product).y;
    for (int64_t i = 0; i < 9 * 17; ++i) {
      const int64_t row = i / 17;
      const bool reached = row == 4 || row == 2 || (row >= 5 && i % 17 == column);
      const auto at = static_cast<size_t>(i);
      expect(reached ? !std::isfinite(y[at]) : y[at] == clean[at],
             label("row ", row, ", column ", i % 17, ": ", y[at]));
    }
  }
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
