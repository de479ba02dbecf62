#include <algorithm>
#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

namespace {

struct Shape {
  int64_t heads;
  int64_t keyValueHeads;
  int64_t headSize;
};

struct Operands {
  std::vector<float> q, k, v, dy;
};

Operands operands(Random& random, int64_t rows, const Shape& s) {
  const int64_t queries = rows * s.heads * s.headSize, keys = rows * s.keyValueHeads * s.headSize;
  return {random.normals(queries), random.normals(keys), random.normals(keys), random.normals(queries)};
}

template <class T>
struct Results {
  std::vector<T> y, logSumExp, dq, dk, dv;
};

Results<float> run(const Context& context, const Operands& x, const std::vector<int32_t>& offsets, const Shape& s,
                   bool causal) {
  const int64_t rows = offsets.back();
  const auto units = static_cast<int64_t>(offsets.size()) - 1;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.headSize)));
  const auto q = context.tensor(x.q), k = context.tensor(x.k), v = context.tensor(x.v), dy = context.tensor(x.dy);
  const auto offsetsT = context.tensor(offsets);
  const auto result = [&](size_t size) { return context.result<float>(static_cast<int64_t>(size)); };
  const auto y = result(x.q.size()), dq = result(x.q.size()), dk = result(x.k.size()), dv = result(x.v.size()),
             logSumExp = context.result<float>(rows * s.heads);
  context.backend().attention(
      {q, k, v, offsetsT, y, logSumExp, rows, units, s.heads, s.keyValueHeads, s.headSize, scale, causal});
  context.backend().attentionBackward({dy, q, k, v, y, logSumExp, offsetsT, dq, dk, dv, rows, units, s.heads,
                                       s.keyValueHeads, s.headSize, scale, causal});
  return {y.values(), logSumExp.values(), dq.values(), dk.values(), dv.values()};
}

Results<double> reference(const Operands& x, const std::vector<int32_t>& offsets, const Shape& s, bool causal) {
  const auto rows = static_cast<size_t>(offsets.back());
  const double scale = 1 / std::sqrt(static_cast<double>(s.headSize));
  Results<double> result;
  result.y.resize(x.q.size());
  result.dq.resize(x.q.size());
  result.dk.resize(x.k.size());
  result.dv.resize(x.v.size());
  result.logSumExp.resize(rows * static_cast<size_t>(s.heads));
  for (size_t u = 0; u + 1 < offsets.size(); ++u) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const auto query = [&](int64_t r, int64_t c) { return static_cast<size_t>((r * s.heads + h) * s.headSize + c); };
      const int64_t keyHead = h / (s.heads / s.keyValueHeads);
      const auto key = [&](int64_t r, int64_t c) {
        return static_cast<size_t>((r * s.keyValueHeads + keyHead) * s.headSize + c);
      };
      for (int64_t i = offsets[u]; i < offsets[u + 1]; ++i) {
        const int64_t last = causal ? i + 1 : offsets[u + 1];
        std::vector<double> p;
        for (int64_t j = offsets[u]; j < last; ++j) {
          double score = 0;
          for (int64_t c = 0; c < s.headSize; ++c) score += scale * x.q[query(i, c)] * x.k[key(j, c)];
          p.push_back(score);
        }
        const double top = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (const double score : p) sum += std::exp(score - top);
        const double log = top + std::log(sum);
        result.logSumExp[static_cast<size_t>(i * s.heads + h)] = log;
        std::vector<double> dp;
        double dot = 0;
        for (int64_t j = offsets[u]; j < last; ++j) {
          double& weight = p[static_cast<size_t>(j - offsets[u])];
          weight = std::exp(weight - log);
          double product = 0;
          for (int64_t c = 0; c < s.headSize; ++c) {
            result.y[query(i, c)] += weight * x.v[key(j, c)];
            result.dv[key(j, c)] += weight * x.dy[query(i, c)];
            product += static_cast<double>(x.dy[query(i, c)]) * x.v[key(j, c)];
          }
          dp.push_back(product);
          dot += weight * product;
        }
        for (int64_t j = offsets[u]; j < last; ++j) {
          const auto at = static_cast<size_t>(j - offsets[u]);
          const double dScore = p[at] * (dp[at] - dot) * scale;
          for (int64_t c = 0; c < s.headSize; ++c) {
            result.dq[query(i, c)] += dScore * x.k[key(j, c)];
            result.dk[key(j, c)] += dScore * x.q[query(i, c)];
          }
        }
      }
    }
  }
  return result;
}

const std::vector<Shape> kShapes = {{1, 1, 1}, {2, 2, 5}, {4, 2, 8}, {4, 1, 16}, {3, 3, 17}, {4, 4, 32}, {2, 1, 64}};

}  // namespace

CONFORMANCE_TEST(attention) {
  for (const auto& lengths : unitLengths()) {
    for (const Shape& shape : kShapes) {
      for (const bool causal : {false, true}) {
        Random random(static_cast<uint64_t>(shape.headSize));
        const auto offsets = offsetsOf(lengths);
        const auto x = operands(random, offsets.back(), shape);
        const auto got = run(context, x, offsets, shape, causal);
        const auto want = reference(x, offsets, shape, causal);
        const auto name = label(describe(lengths, shape.headSize), ", heads ", shape.heads, "/", shape.keyValueHeads,
                                causal ? ", causal" : "");
        expectNear(got.y, want.y, 1e-5, 3e-6, "y, " + name);
        expectNear(got.logSumExp, want.logSumExp, 1e-6, 2e-6, "logSumExp, " + name);
        expectNear(got.dq, want.dq, 1e-4, 1e-5, "dq, " + name);
        expectNear(got.dk, want.dk, 1e-4, 2e-5, "dk, " + name);
        expectNear(got.dv, want.dv, 1e-4, 2e-5, "dv, " + name);
        context.sameInEveryRun("attention y, " + name, got.y);
        context.sameInEveryRun("attention dq, " + name, got.dq);
        context.sameInEveryRun("attention dk, " + name, got.dk);
      }
    }
  }
}

CONFORMANCE_TEST(attentionOfAUnitIsItsOwn) {
  const Shape shape = {4, 2, 12};
  for (const bool causal : {false, true}) {
    for (const int32_t length : {1, 20, 100}) {
      Random random(6);
      const auto own = operands(random, length, shape);
      Results<float> first;
      for (const int32_t before : {0, 1, 70}) {
        auto others = operands(random, before, shape);
        for (auto* part : {&others.q, &others.k, &others.v, &others.dy}) std::fill(part->begin(), part->end(), NAN);
        const auto after = operands(random, 3, shape);
        const Operands x = {join<float>({others.q, own.q, after.q}), join<float>({others.k, own.k, after.k}),
                            join<float>({others.v, own.v, after.v}), join<float>({others.dy, own.dy, after.dy})};
        const auto offsets = offsetsOf({before, length, 3});
        const auto all = run(context, x, offsets, shape, causal);
        const int64_t queries = shape.heads * shape.headSize, keys = shape.keyValueHeads * shape.headSize;
        const Results<float> mine = {rowsOfUnit(all.y, offsets, 1, queries),
                                     rowsOfUnit(all.logSumExp, offsets, 1, shape.heads),
                                     rowsOfUnit(all.dq, offsets, 1, queries), rowsOfUnit(all.dk, offsets, 1, keys),
                                     rowsOfUnit(all.dv, offsets, 1, keys)};
        for (const float value : mine.dk) expect(std::isfinite(value), "a neighbour's NaN came over");
        if (before == 0) first = mine;
        expectSame(mine.y, first.y, "y of a unit among others");
        expectSame(mine.logSumExp, first.logSumExp, "logSumExp of a unit among others");
        expectSame(mine.dq, first.dq, "dq of a unit among others");
        expectSame(mine.dk, first.dk, "dk of a unit among others");
        expectSame(mine.dv, first.dv, "dv of a unit among others");
      }
    }
  }
}

CONFORMANCE_TEST(causalRowsDoNotSeeLaterOnes) {
  // Later rows replaced by values a million times larger: earlier rows keep their bits.
  const Shape shape = {2, 2, 16};
  Random random(9);
  const auto x = operands(random, 150, shape);
  auto changed = x;
  const int64_t d = shape.heads * shape.headSize;
  for (auto* part : {&changed.q, &changed.k, &changed.v}) std::fill(part->begin() + 90 * d, part->end(), 1e6f);
  const auto before = run(context, x, {0, 150}, shape, true).y;
  const auto after = run(context, changed, {0, 150}, shape, true).y;
  expectSame(std::vector<float>(after.begin(), after.begin() + 90 * d),
             std::vector<float>(before.begin(), before.begin() + 90 * d), "the rows before the change");
}

CONFORMANCE_TEST(attentionWithExtremeScores) {
  // Scores of 1e8: the softmax picks one key; nothing overflows.
  const Shape shape = {1, 1, 8};
  Random random(10);
  auto x = operands(random, 70, shape);
  for (float& value : x.q) value *= 1e4f;
  for (float& value : x.k) value *= 1e4f;
  const auto got = run(context, x, {0, 70}, shape, false);
  const auto want = reference(x, {0, 70}, shape, false);
  expectNear(got.y, want.y, 1e-5, 1e-5, "y");
  for (const auto* values : {&got.dq, &got.dk, &got.dv}) {
    for (const float value : *values) expect(std::isfinite(value), "a finite gradient");
  }
}

CONFORMANCE_TEST(attentionRefuses) {
  auto& backend = context.backend();
  const auto eight = context.result<float>(8), four = context.result<float>(4), two = context.result<float>(2);
  const auto offsets = context.tensor(std::vector<int32_t>{0, 1, 2}),
             beyond = context.tensor(std::vector<int32_t>{0, 1, 3});
  backend.attention({eight, four, four, offsets, eight, four, 2, 2, 2, 1, 2, 1, false});
  expectError(
      "SHAPE_MISMATCH", [&] { backend.attention({four, four, four, offsets, eight, four, 2, 2, 2, 1, 2, 1, false}); },
      "q");
  expectError(
      "SHAPE_MISMATCH", [&] { backend.attention({eight, eight, four, offsets, eight, four, 2, 2, 2, 1, 2, 1, false}); },
      "k");
  expectError(
      "SHAPE_MISMATCH", [&] { backend.attention({eight, four, four, offsets, eight, two, 2, 2, 2, 1, 2, 1, false}); },
      "lse");
  expectError(
      "INVALID_ARGUMENT", [&] { backend.attention({eight, four, four, beyond, eight, four, 2, 2, 2, 1, 2, 1, false}); },
      "offsets");
  expectError(
      "INVALID_ARGUMENT",
      [&] { backend.attention({eight, four, four, offsets, eight, four, 2, 2, 3, 2, 2, 1, false}); }, "heads");
  expectError(
      "SHAPE_MISMATCH",
      [&] {
        backend.attentionBackward(
            {eight, eight, four, four, eight, four, offsets, eight, two, four, 2, 2, 2, 1, 2, 1, false});
      },
      "dk");
}

}  // namespace dp_moe::conformance
