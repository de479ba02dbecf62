#include <algorithm>

#include "attention_reference.h"

namespace dp_moe::conformance {

namespace {

/// Head sizes below, at and above what kernels pad to, whole 16-byte accesses or not; grouped heads.
const std::vector<AttentionShape> kShapes = {{1, 1, 1},  {2, 2, 5},  {4, 2, 8},   {4, 1, 16},  {3, 3, 17},
                                             {4, 4, 32}, {2, 1, 64}, {1, 1, 100}, {2, 1, 128}, {1, 1, 250}};

void checkAttention(const Context& context, const std::vector<int32_t>& lengths, const AttentionShape& shape,
                    bool causal) {
  context.forEachReal([&]<class T>() {
    Random random(static_cast<uint64_t>(shape.headSize));
    const auto offsets = offsetsOf(lengths);
    const auto x = attentionOperands<T>(random, offsets.back(), shape);
    const auto got = runAttention<T>(context, x, offsets, shape, causal);
    const auto name = label(describe(lengths, shape.headSize), ", heads ", shape.heads, "/", shape.keyValueHeads,
                            causal ? ", causal, " : ", ", nameOf(dtypeOf<T>));
    expectAttention(got, attentionReference(x, offsets, shape, causal), storageError<T>, name);
    context.sameInEveryRun("attention y, " + name, got.y);
    context.sameInEveryRun("attention dq, " + name, got.dq);
    context.sameInEveryRun("attention dk, " + name, got.dk);
  });
}

}  // namespace

CONFORMANCE_TEST(attention) {
  for (const auto& lengths : unitLengths()) {
    for (const AttentionShape& shape : kShapes) {
      for (const bool causal : {false, true}) checkAttention(context, lengths, shape, causal);
    }
  }
}

CONFORMANCE_TEST(attentionOfManyUnits) {
  // More units than a warp looks through at once, many of them empty, and one longer than the largest tile.
  std::vector<int32_t> lengths(1100);
  Random random(3);
  for (auto& length : lengths) length = std::max(0, random.below(5) - 2);
  lengths[700] = 150;
  checkAttention(context, lengths, {1, 1, 16}, true);
}

CONFORMANCE_TEST(attentionWithOwnKeysAndBias) {
  struct Lengths {
    std::vector<int32_t> queries, keys;
  };
  // Fewer, as many and more keys than queries; none at all; tiles that meet at an offset.
  const std::vector<Lengths> lengths = {{{3, 0, 5}, {4, 2, 5}},  {{1, 1}, {130, 1}},     {{7, 3}, {2, 0}},
                                        {{65, 130}, {129, 130}}, {{130, 64}, {64, 200}}, {{40}, {100}}};
  const auto check = [&]<class T>(const Lengths& at, const AttentionShape& shape, int64_t span, bool causal) {
    Random random(static_cast<uint64_t>(shape.headSize + span));
    const auto offsets = offsetsOf(at.queries);
    const auto x = attentionOperands<T>(random, offsets.back(), offsetsOf(at.keys), span, shape);
    const auto got = runAttention<T>(context, x, offsets, shape, causal);
    const auto name =
        label(describe(at.queries, shape.headSize), ", ", describe(at.keys, shape.headSize), ", heads ", shape.heads,
              "/", shape.keyValueHeads, ", span ", span, causal ? ", causal, " : ", ", nameOf(dtypeOf<T>));
    expectAttention(got, attentionReference(x, offsets, shape, causal), storageError<T>, name);
    context.sameInEveryRun("attention y, " + name, got.y);
    context.sameInEveryRun("attention dk, " + name, got.dk);
    context.sameInEveryRun("attention dBias, " + name, got.dBias);
  };
  context.forEachReal([&]<class T>() {
    for (const Lengths& at : lengths) {
      for (const AttentionShape& shape : std::vector<AttentionShape>{{1, 1, 3}, {4, 2, 8}, {4, 1, 20}}) {
        if (context.emulated() && shape.keyValueHeads == 1 && shape.heads > 1) continue;
        for (const int64_t span : {0, 1, 4, 33, 140}) {
          for (const bool causal : {false, true}) check.template operator()<T>(at, shape, span, causal);
        }
      }
      for (const int64_t headSize : {64, 128, 256}) check.template operator()<T>(at, {2, 1, headSize}, 33, true);
    }
  });
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

}  // namespace dp_moe::conformance
