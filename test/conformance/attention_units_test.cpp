#include <algorithm>

#include "attention_reference.h"

// What a unit's attention may not depend on.

namespace dp_moe::conformance {

namespace {

/// The results of one unit.
AttentionResults<float> ofUnit(const AttentionResults<float>& all, const std::vector<int32_t>& offsets,
                               const std::vector<int32_t>& keyOffsets, size_t unit, const AttentionShape& shape,
                               int64_t biasSize) {
  const int64_t queries = shape.heads * shape.headSize, keys = shape.keyValueHeads * shape.headSize;
  const auto at = static_cast<int64_t>(unit) * biasSize;
  return {rowsOfUnit(all.y, offsets, unit, queries),  rowsOfUnit(all.logSumExp, offsets, unit, shape.heads),
          rowsOfUnit(all.dq, offsets, unit, queries), rowsOfUnit(all.dk, keyOffsets, unit, keys),
          rowsOfUnit(all.dv, keyOffsets, unit, keys), {all.dBias.begin() + at, all.dBias.begin() + at + biasSize}};
}

void expectSameResults(const AttentionResults<float>& mine, const AttentionResults<float>& first) {
  expectSame(mine.y, first.y, "y of a unit among others");
  expectSame(mine.logSumExp, first.logSumExp, "logSumExp of a unit among others");
  expectSame(mine.dq, first.dq, "dq of a unit among others");
  expectSame(mine.dk, first.dk, "dk of a unit among others");
  expectSame(mine.dv, first.dv, "dv of a unit among others");
  expectSame(mine.dBias, first.dBias, "dBias of a unit among others");
}

}  // namespace

CONFORMANCE_TEST(biasedAttentionOfAUnitIsItsOwn) {
  const AttentionShape shape = {4, 2, 12};
  const int64_t span = 30, queries = shape.heads * shape.headSize, keys = shape.keyValueHeads * shape.headSize;
  context.forEachReal([&]<class T>() {
    for (const bool causal : {false, true}) {
      Random random(6);
      const auto own = attentionOperands<T>(random, 50, {0, 90}, span, shape);
      AttentionResults<float> first;
      for (const int32_t before : {0, 1, 70}) {
        const auto offsets = offsetsOf({before, 50, 3}), keyOffsets = offsetsOf({2 * before, 90, 5});
        auto x = attentionOperands<T>(random, offsets.back(), keyOffsets, span, shape);
        for (auto* part : {&x.q, &x.k, &x.v, &x.dy}) std::fill(part->begin(), part->end(), NAN);
        std::copy(own.q.begin(), own.q.end(), x.q.begin() + before * queries);
        std::copy(own.dy.begin(), own.dy.end(), x.dy.begin() + before * queries);
        std::copy(own.k.begin(), own.k.end(), x.k.begin() + 2 * before * keys);
        std::copy(own.v.begin(), own.v.end(), x.v.begin() + 2 * before * keys);
        x.bias = own.bias;
        const auto all = runAttention<T>(context, x, offsets, shape, causal);
        const auto mine = ofUnit(all, offsets, keyOffsets, 1, shape, static_cast<int64_t>(x.bias.size()));
        for (const float value : mine.dBias) expect(std::isfinite(value), "a neighbour's NaN came over");
        if (before == 0) first = mine;
        expectSameResults(mine, first);
      }
    }
  });
}

CONFORMANCE_TEST(attentionOfAUnitIsItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const AttentionShape& shape : std::vector<AttentionShape>{{4, 2, 12}, {2, 1, 64}, {1, 1, 256}}) {
      for (const bool causal : {false, true}) {
        for (const int32_t length : {1, 20, 100}) {
          Random random(6);
          const auto own = attentionOperands<T>(random, length, shape);
          AttentionResults<float> first;
          for (const int32_t before : {0, 1, 70}) {
            auto others = attentionOperands<T>(random, before, shape);
            for (auto* part : {&others.q, &others.k, &others.v, &others.dy}) std::fill(part->begin(), part->end(), NAN);
            const auto after = attentionOperands<T>(random, 3, shape);
            const AttentionOperands x = {
                join<float>({others.q, own.q, after.q}), join<float>({others.k, own.k, after.k}),
                join<float>({others.v, own.v, after.v}), join<float>({others.dy, own.dy, after.dy})};
            const auto offsets = offsetsOf({before, length, 3});
            const auto all = runAttention<T>(context, x, offsets, shape, causal);
            const auto mine = ofUnit(all, offsets, offsets, 1, shape, 0);
            for (const float value : mine.dk) expect(std::isfinite(value), "a neighbour's NaN came over");
            if (before == 0) first = mine;
            expectSameResults(mine, first);
          }
        }
      }
    }
  });
}

CONFORMANCE_TEST(causalRowsDoNotSeeLaterOnes) {
  // Later rows replaced by values a million times larger: earlier rows keep their bits.
  context.forEachReal([&]<class T>() {
    const AttentionShape shape = {2, 2, 16};
    Random random(9);
    const auto x = attentionOperands<T>(random, 150, shape);
    auto changed = x;
    const int64_t d = shape.heads * shape.headSize;
    for (auto* part : {&changed.q, &changed.k, &changed.v}) std::fill(part->begin() + 90 * d, part->end(), 1e6f);
    const auto before = runAttention<T>(context, x, {0, 150}, shape, true).y;
    const auto after = runAttention<T>(context, changed, {0, 150}, shape, true).y;
    expectSame(std::vector<float>(after.begin(), after.begin() + 90 * d),
               std::vector<float>(before.begin(), before.begin() + 90 * d), "the rows before the change");
  });
}

CONFORMANCE_TEST(rowsPastTheLastUnitStay) {
  const AttentionShape shape = {2, 1, 24};
  context.forEachReal([&]<class T>() {
    Random random(11);
    const auto x = attentionOperands<T>(random, 90, shape);
    const auto q = context.tensor<T>(x.q), k = context.tensor<T>(x.k), v = context.tensor<T>(x.v),
               dy = context.tensor<T>(x.dy);
    const auto offsets = context.tensor(std::vector<int32_t>{3, 70});
    const int64_t d = shape.heads * shape.headSize;
    const auto y = context.result<T>(90 * d), dq = context.result<T>(90 * d), dk = context.result<T>(90 * d / 2),
               dv = context.result<T>(90 * d / 2), untouched = context.result<T>(90 * d);
    const auto log = context.result<float>(180);
    context.backend().attention({q, k, v, offsets, {}, {}, y, log, 90, 1, 2, 1, 24, 0, 0.2f, false});
    context.backend().attentionBackward(
        {dy, q, k, v, y, log, offsets, {}, {}, dq, dk, dv, {}, 90, 1, 2, 1, 24, 0, 0.2f, false});
    const auto same = [&](const Tensor<T>& result, int64_t width, const char* what) {
      const auto values = result.values(), fresh = untouched.values();
      for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 3}, {70, 90}}) {
        expectSame(std::vector<T>(values.begin() + from * width, values.begin() + to * width),
                   std::vector<T>(fresh.begin() + from * width, fresh.begin() + to * width), what);
      }
    };
    same(y, d, "y of rows of no unit");
    same(dq, d, "dq of rows of no unit");
    same(dk, d / 2, "dk of rows of no unit");
    same(dv, d / 2, "dv of rows of no unit");
  });
}

CONFORMANCE_TEST(attentionWithALargeBias) {
  // exp(200) is no float: rows that a tile has beyond a unit's must not count, not even times 0.
  const AttentionShape shape = {2, 1, 16};
  context.forEachReal([&]<class T>() {
    Random random(12);
    auto x = attentionOperands<T>(random, 45, offsetsOf({7, 33}), 3, shape);
    std::fill(x.bias.begin(), x.bias.end(), 200.0f);
    for (const bool causal : {false, true}) {
      const auto got = runAttention<T>(context, x, offsetsOf({5, 40}), shape, causal);
      for (const auto* values : {&got.y, &got.dq, &got.dk, &got.dv, &got.dBias}) {
        for (const float value : *values) expect(std::isfinite(value), "a finite result");
      }
    }
  });
}

CONFORMANCE_TEST(attentionWithExtremeScores) {
  // Scores of 1e8: the softmax picks one key; nothing overflows.
  const AttentionShape shape = {1, 1, 8};
  context.forEachReal([&]<class T>() {
    Random random(10);
    auto x = attentionOperands<T>(random, 70, shape);
    for (float& value : x.q) value *= 8192;
    for (float& value : x.k) value *= 8192;
    const auto got = runAttention<T>(context, x, {0, 70}, shape, false);
    const auto want = attentionReference(x, {0, 70}, shape, false);
    expectNear(got.y, want.value.y, 1e-5 + 2 * storageError<T>, 1e-5, "y");
    for (const auto* values : {&got.dq, &got.dk, &got.dv}) {
      for (const float value : *values) expect(std::isfinite(value), "a finite gradient");
    }
  });
}

}  // namespace dp_moe::conformance
