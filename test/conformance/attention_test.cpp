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

/// Without keyOffsets the keys are the queries' rows; without bias span is 0.
struct Operands {
  std::vector<float> q, k, v, dy;
  std::vector<int32_t> keyOffsets = {};
  std::vector<float> bias = {};
  int64_t span = 0;
};

Operands operands(Random& random, int64_t rows, const Shape& s) {
  const int64_t queries = rows * s.heads * s.headSize, keys = rows * s.keyValueHeads * s.headSize;
  return {random.normals(queries), random.normals(keys), random.normals(keys), random.normals(queries)};
}

/// With keys of their own number and a bias.
Operands operands(Random& random, int64_t rows, std::vector<int32_t> keyOffsets, int64_t span, const Shape& s) {
  const int64_t queries = rows * s.heads * s.headSize, keys = keyOffsets.back() * s.keyValueHeads * s.headSize;
  return {random.normals(queries),
          random.normals(keys),
          random.normals(keys),
          random.normals(queries),
          std::move(keyOffsets),
          random.normals(std::max<int64_t>(0, 2 * span - 1) * s.heads),
          span};
}

template <class T>
struct Results {
  std::vector<T> y, logSumExp, dq, dk, dv, dBias;
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
  const auto keyOffsetsT = context.tensor(x.keyOffsets);
  const Input<int32_t> keyOffsets = x.keyOffsets.empty() ? Input<int32_t>{} : Input<int32_t>(keyOffsetsT);
  const auto biasT = context.tensor(x.bias);
  const auto dBiasT = context.result<float>(units * static_cast<int64_t>(x.bias.size()));
  const Input<float> bias = x.span == 0 ? Input<float>{} : Input<float>(biasT);
  const Output<float> dBias = x.span == 0 ? Output<float>{} : Output<float>(dBiasT);
  context.backend().attention({q, k, v, offsetsT, keyOffsets, bias, y, logSumExp, rows, units, s.heads, s.keyValueHeads,
                               s.headSize, x.span, scale, causal});
  context.backend().attentionBackward(
      {dy, q,     k,    v,     y,       logSumExp,       offsetsT,   keyOffsets, bias,  dq,    dk,
       dv, dBias, rows, units, s.heads, s.keyValueHeads, s.headSize, x.span,     scale, causal});
  return {y.values(), logSumExp.values(), dq.values(), dk.values(), dv.values(), dBiasT.values()};
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
  result.dBias.resize((offsets.size() - 1) * x.bias.size());
  const auto& keyOffsets = x.keyOffsets.empty() ? offsets : x.keyOffsets;
  for (size_t u = 0; u + 1 < offsets.size(); ++u) {
    const int64_t firstKey = keyOffsets[u], keys = keyOffsets[u + 1] - firstKey;
    const int64_t shift = keys - (offsets[u + 1] - offsets[u]);
    for (int64_t h = 0; h < s.heads; ++h) {
      const auto query = [&](int64_t r, int64_t c) { return static_cast<size_t>((r * s.heads + h) * s.headSize + c); };
      const int64_t keyHead = h / (s.heads / s.keyValueHeads);
      const auto key = [&](int64_t r, int64_t c) {
        return static_cast<size_t>((r * s.keyValueHeads + keyHead) * s.headSize + c);
      };
      for (int64_t i = offsets[u]; i < offsets[u + 1]; ++i) {
        const int64_t position = i - offsets[u] + shift;
        const int64_t last = firstKey + (causal ? std::min(keys, position + 1) : keys);
        const auto biasAt = [&](int64_t j) {
          const int64_t distance = std::clamp(j - firstKey - position, -(x.span - 1), x.span - 1);
          return static_cast<size_t>((distance + x.span - 1) * s.heads + h);
        };
        double& log = result.logSumExp[static_cast<size_t>(i * s.heads + h)];
        if (last <= firstKey) {
          log = -INFINITY;
          continue;
        }
        std::vector<double> p;
        for (int64_t j = firstKey; j < last; ++j) {
          double score = x.span == 0 ? 0 : x.bias[biasAt(j)];
          for (int64_t c = 0; c < s.headSize; ++c) score += scale * x.q[query(i, c)] * x.k[key(j, c)];
          p.push_back(score);
        }
        const double top = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (const double score : p) sum += std::exp(score - top);
        log = top + std::log(sum);
        std::vector<double> dp;
        double dot = 0;
        for (int64_t j = firstKey; j < last; ++j) {
          double& weight = p[static_cast<size_t>(j - firstKey)];
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
        for (int64_t j = firstKey; j < last; ++j) {
          const auto at = static_cast<size_t>(j - firstKey);
          const double dScore = p[at] * (dp[at] - dot) * scale;
          if (x.span > 0) result.dBias[u * x.bias.size() + biasAt(j)] += p[at] * (dp[at] - dot);
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

CONFORMANCE_TEST(attentionWithOwnKeysAndBias) {
  struct Lengths {
    std::vector<int32_t> queries, keys;
  };
  // Fewer, as many and more keys than queries; none at all; tiles that meet at an offset.
  const std::vector<Lengths> lengths = {{{3, 0, 5}, {4, 2, 5}},  {{1, 1}, {130, 1}},     {{7, 3}, {2, 0}},
                                        {{65, 130}, {129, 130}}, {{130, 64}, {64, 200}}, {{40}, {100}}};
  for (const auto& [queries, keys] : lengths) {
    for (const Shape& shape : std::vector<Shape>{{1, 1, 3}, {4, 2, 8}, {4, 1, 20}}) {
      for (const int64_t span : {0, 1, 4, 33, 140}) {
        for (const bool causal : {false, true}) {
          Random random(static_cast<uint64_t>(shape.headSize + span));
          const auto offsets = offsetsOf(queries);
          const auto x = operands(random, offsets.back(), offsetsOf(keys), span, shape);
          const auto got = run(context, x, offsets, shape, causal);
          const auto want = reference(x, offsets, shape, causal);
          const auto name = label(describe(queries, shape.headSize), ", ", describe(keys, shape.headSize), ", heads ",
                                  shape.heads, "/", shape.keyValueHeads, ", span ", span, causal ? ", causal" : "");
          expectNear(got.y, want.y, 1e-5, 3e-6, "y, " + name);
          expectNear(got.logSumExp, want.logSumExp, 1e-6, 2e-6, "logSumExp, " + name);
          expectNear(got.dq, want.dq, 1e-4, 2e-5, "dq, " + name);
          expectNear(got.dk, want.dk, 1e-4, 2e-5, "dk, " + name);
          expectNear(got.dv, want.dv, 1e-4, 2e-5, "dv, " + name);
          expectNear(got.dBias, want.dBias, 1e-4, 2e-5, "dBias, " + name);
          context.sameInEveryRun("attention y, " + name, got.y);
          context.sameInEveryRun("attention dk, " + name, got.dk);
          context.sameInEveryRun("attention dBias, " + name, got.dBias);
        }
      }
    }
  }
}

CONFORMANCE_TEST(biasedAttentionOfAUnitIsItsOwn) {
  const Shape shape = {4, 2, 12};
  const int64_t span = 30, queries = shape.heads * shape.headSize, keys = shape.keyValueHeads * shape.headSize;
  for (const bool causal : {false, true}) {
    Random random(6);
    const auto own = operands(random, 50, {0, 90}, span, shape);
    Results<float> first;
    for (const int32_t before : {0, 1, 70}) {
      const auto offsets = offsetsOf({before, 50, 3}), keyOffsets = offsetsOf({2 * before, 90, 5});
      auto x = operands(random, offsets.back(), keyOffsets, span, shape);
      for (auto* part : {&x.q, &x.k, &x.v, &x.dy}) std::fill(part->begin(), part->end(), NAN);
      std::copy(own.q.begin(), own.q.end(), x.q.begin() + before * queries);
      std::copy(own.dy.begin(), own.dy.end(), x.dy.begin() + before * queries);
      std::copy(own.k.begin(), own.k.end(), x.k.begin() + 2 * before * keys);
      std::copy(own.v.begin(), own.v.end(), x.v.begin() + 2 * before * keys);
      x.bias = own.bias;
      const auto all = run(context, x, offsets, shape, causal);
      const auto biasSize = static_cast<int64_t>(x.bias.size());
      const Results<float> mine = {
          rowsOfUnit(all.y, offsets, 1, queries),  rowsOfUnit(all.logSumExp, offsets, 1, shape.heads),
          rowsOfUnit(all.dq, offsets, 1, queries), rowsOfUnit(all.dk, keyOffsets, 1, keys),
          rowsOfUnit(all.dv, keyOffsets, 1, keys), rowsOfUnit(all.dBias, {0, 1, 2, 3}, 1, biasSize)};
      for (const float value : mine.dBias) expect(std::isfinite(value), "a neighbour's NaN came over");
      if (before == 0) first = mine;
      expectSame(mine.y, first.y, "y of a unit among others");
      expectSame(mine.dq, first.dq, "dq of a unit among others");
      expectSame(mine.dk, first.dk, "dk of a unit among others");
      expectSame(mine.dv, first.dv, "dv of a unit among others");
      expectSame(mine.dBias, first.dBias, "dBias of a unit among others");
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
        const Results<float> mine = {
            rowsOfUnit(all.y, offsets, 1, queries),  rowsOfUnit(all.logSumExp, offsets, 1, shape.heads),
            rowsOfUnit(all.dq, offsets, 1, queries), rowsOfUnit(all.dk, offsets, 1, keys),
            rowsOfUnit(all.dv, offsets, 1, keys),    {}};
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
  const auto eight = context.result<float>(8), six = context.result<float>(6), four = context.result<float>(4),
             two = context.result<float>(2);
  const auto offsets = context.tensor(std::vector<int32_t>{0, 1, 2}),
             beyond = context.tensor(std::vector<int32_t>{0, 1, 3}),
             short_ = context.tensor(std::vector<int32_t>{0, 2});
  const AttentionParams good = {eight, four, four, offsets, {}, {}, eight, four, 2, 2, 2, 1, 2, 0, 1, false};
  const auto refuses = [&](const char* code, const char* what, auto change) {
    AttentionParams p = good;
    change(p);
    expectError(code, [&] { backend.attention(p); }, what);
  };
  backend.attention(good);
  refuses("SHAPE_MISMATCH", "q", [&](auto& p) { p.q = four; });
  refuses("SHAPE_MISMATCH", "k", [&](auto& p) { p.k = eight; });
  refuses("SHAPE_MISMATCH", "v", [&](auto& p) { p.v = two; });
  refuses("SHAPE_MISMATCH", "lse", [&](auto& p) { p.logSumExp = two; });
  refuses("INVALID_ARGUMENT", "offsets", [&](auto& p) { p.offsets = beyond; });
  refuses("INVALID_ARGUMENT", "heads", [&](auto& p) { p.heads = 3, p.keyValueHeads = 2; });
  refuses("INVALID_ARGUMENT", "keyOffsets", [&](auto& p) { p.keyOffsets = beyond; });
  refuses("SHAPE_MISMATCH", "keyOffsets", [&](auto& p) { p.keyOffsets = short_; });
  refuses("INVALID_ARGUMENT", "span", [&](auto& p) { p.bias = six; });
  refuses("SHAPE_MISMATCH", "bias", [&](auto& p) { p.bias = four, p.span = 2; });
  const AttentionBackwardParams backward = {eight, eight, four, four, eight, four, offsets, {}, six, eight, four,
                                            four,  {},    2,    2,    2,     1,    2,       2,  1,   false};
  const auto refusesBackward = [&](const char* code, const char* what, auto change) {
    AttentionBackwardParams p = backward;
    change(p);
    expectError(code, [&] { backend.attentionBackward(p); }, what);
  };
  backend.attentionBackward(backward);
  refusesBackward("SHAPE_MISMATCH", "dk", [&](auto& p) { p.dk = two; });
  refusesBackward("SHAPE_MISMATCH", "dBias", [&](auto& p) { p.dBias = six; });
  refusesBackward("INVALID_ARGUMENT", "dBias without bias", [&](auto& p) { p.bias = {}, p.dBias = six; });
}

CONFORMANCE_TEST(rotaryEmbedding) {
  struct RotaryShape {
    int64_t heads, headSize;
  };
  for (const auto& [heads, headSize] : std::vector<RotaryShape>{{1, 2}, {2, 6}, {3, 16}, {4, 34}, {2, 128}}) {
    for (const int64_t rows : {0, 1, 90}) {
      Random random(static_cast<uint64_t>(headSize));
      const int64_t half = headSize / 2, d = heads * headSize;
      const auto x = random.normals(rows * d);
      std::vector<int32_t> positions;
      for (int64_t r = 0; r < rows; ++r) positions.push_back(random.below(3000));
      std::vector<float> frequency;
      for (int64_t c = 0; c < half; ++c) {
        frequency.push_back(static_cast<float>(std::pow(10000.0, -static_cast<double>(c) / static_cast<double>(half))));
      }
      std::vector<double> want(x.size()), wantInverse(x.size());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t c = 0; c < half; ++c) {
            const auto row = static_cast<size_t>(r);
            const float angle = static_cast<float>(positions[row]) * frequency[static_cast<size_t>(c)];
            const double cosine = std::cos(static_cast<double>(angle)), sine = std::sin(static_cast<double>(angle));
            const auto lower = static_cast<size_t>(r * d + h * headSize + c), upper = lower + static_cast<size_t>(half);
            want[lower] = x[lower] * cosine - x[upper] * sine;
            want[upper] = x[upper] * cosine + x[lower] * sine;
            wantInverse[lower] = x[lower] * cosine + x[upper] * sine;
            wantInverse[upper] = x[upper] * cosine - x[lower] * sine;
          }
        }
      }
      const auto xT = context.tensor(x), y = context.result<float>(rows * d);
      const auto positionsT = context.tensor(positions);
      const auto frequencyT = context.tensor(frequency);
      const auto name = label("rows ", rows, ", heads ", heads, ", headSize ", headSize);
      context.backend().rotaryEmbedding({xT, positionsT, frequencyT, y, rows, heads, headSize, false});
      expectNear(y.values(), want, 1e-6, 1e-6, "rotary, " + name);
      context.sameInEveryRun("rotary, " + name, y.values());
      context.backend().rotaryEmbedding({xT, positionsT, frequencyT, y, rows, heads, headSize, true});
      expectNear(y.values(), wantInverse, 1e-6, 1e-6, "inverse rotary, " + name);
      context.backend().rotaryEmbedding({xT, positionsT, frequencyT, xT, rows, heads, headSize, true});
      expectSame(xT.values(), y.values(), "in place, " + name);
    }
  }
  auto& backend = context.backend();
  const auto six = context.result<float>(6), three = context.result<float>(3);
  const auto positions = context.tensor(std::vector<int32_t>{0});
  expectError(
      "INVALID_ARGUMENT", [&] { backend.rotaryEmbedding({six, positions, three, six, 1, 2, 3, false}); }, "odd size");
  expectError(
      "SHAPE_MISMATCH", [&] { backend.rotaryEmbedding({six, positions, six, six, 1, 1, 6, false}); }, "frequency");
  expectError("SHAPE_MISMATCH", [&] { backend.rotaryEmbedding({six, positions, three, three, 1, 1, 6, false}); }, "y");
}

}  // namespace dp_moe::conformance
