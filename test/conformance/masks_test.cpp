#include "random/masks.h"

#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

namespace {

const std::vector<int32_t> kKey = {9, 8, 7, 6, 5, 4, 3, 2};

struct Batch {
  std::vector<int32_t> lengths;
  std::vector<int32_t> ids;
};

template <class T = float>
std::vector<float> dropout(const Context& context, const std::vector<float>& x, const Batch& batch, int64_t d,
                           int64_t step, int64_t site, float rate) {
  const auto offsets = offsetsOf(batch.lengths);
  const auto xT = context.tensor<T>(x), y = context.result<T>(static_cast<int64_t>(x.size()));
  const auto offsetsT = context.tensor(offsets), idsT = context.tensor(batch.ids), key = context.tensor(kKey);
  context.backend().dropout(
      {xT, offsetsT, idsT, key, y, offsets.back(), d, static_cast<int64_t>(batch.ids.size()), step, site, rate});
  return y.floats();
}

template <class T = float>
std::vector<float> jitter(const Context& context, const std::vector<float>& x, const Batch& batch, int64_t d,
                          int64_t step, int64_t site, float epsilon) {
  const auto offsets = offsetsOf(batch.lengths);
  const auto xT = context.tensor<T>(x), y = context.result<T>(static_cast<int64_t>(x.size()));
  const auto offsetsT = context.tensor(offsets), idsT = context.tensor(batch.ids), key = context.tensor(kKey);
  context.backend().jitter(
      {xT, offsetsT, idsT, key, y, offsets.back(), d, static_cast<int64_t>(batch.ids.size()), step, site, epsilon});
  return y.floats();
}

std::vector<float> ones(int64_t count) { return std::vector<float>(static_cast<size_t>(count), 1.0f); }

}  // namespace

CONFORMANCE_TEST(masksAreTheirReference) {
  // The same bits on every backend: masks are part of what a run is reproduced from.
  const auto* key = reinterpret_cast<const uint32_t*>(kKey.data());
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {1, 17, 128}) {
      const Batch batch = {{3, 0, 11, 1}, {70000, 1, 5, 2147483647}};
      Random random(1);
      const auto x = rounded<T>(random.normals(15 * d));
      const auto dropped = dropout<T>(context, x, batch, d, 4, 6, 0.25f);
      const auto jittered = jitter<T>(context, x, batch, d, 4, 6, 0.01f);
      std::vector<float> wantDropped, wantJittered;
      const auto offsets = offsetsOf(batch.lengths);
      for (size_t u = 0; u < 4; ++u) {
        for (int64_t e = 0; e < batch.lengths[u] * d; ++e) {
          const auto id = static_cast<uint32_t>(batch.ids[u]);
          const float value = x[static_cast<size_t>(offsets[u] * d + e)];
          const bool kept = maskWord(key, RandomPurpose::dropout, 6, 4, id, e) >= dropThreshold(0.25f);
          wantDropped.push_back(kept ? value * (1.0f / 0.75f) : 0.0f);
          wantJittered.push_back(value * jitterFactor(maskWord(key, RandomPurpose::jitter, 6, 4, id, e), 0.01f));
        }
      }
      expectSame(dropped, rounded<T>(wantDropped), "dropout");
      expectSame(jittered, rounded<T>(wantJittered), "jitter");
    }
  });
}

CONFORMANCE_TEST(masksOfAUnitAreItsOwn) {
  const int64_t d = 24;
  const auto alone = dropout(context, ones(9 * d), {{9}, {42}}, d, 1, 2, 0.5f);
  const auto among = dropout(context, ones(29 * d), {{13, 9, 7}, {7, 42, 8}}, d, 1, 2, 0.5f);
  expectSame(rowsOfUnit(among, {0, 13, 22, 29}, 1, d), alone, "dropout of a unit among others");
  const auto jitterAlone = jitter(context, ones(9 * d), {{9}, {42}}, d, 1, 2, 0.1f);
  const auto jitterAmong = jitter(context, ones(29 * d), {{13, 9, 7}, {7, 42, 8}}, d, 1, 2, 0.1f);
  expectSame(rowsOfUnit(jitterAmong, {0, 13, 22, 29}, 1, d), jitterAlone, "jitter of a unit among others");
  // A longer unit starts with the same mask.
  auto longer = dropout(context, ones(12 * d), {{12}, {42}}, d, 1, 2, 0.5f);
  longer.resize(static_cast<size_t>(9 * d));
  expectSame(longer, alone, "the first rows of a longer unit");
  const auto differs = [&](const std::vector<float>& other, const char* what) {
    size_t equal = 0;
    for (size_t i = 0; i < alone.size(); ++i) equal += alone[i] == other[i];
    expect(equal > alone.size() / 4 && equal < alone.size() * 3 / 4, std::string("the mask ignores the ") + what);
  };
  differs(dropout(context, ones(9 * d), {{9}, {43}}, d, 1, 2, 0.5f), "unit");
  differs(dropout(context, ones(9 * d), {{9}, {42}}, d, 2, 2, 0.5f), "step");
  differs(dropout(context, ones(9 * d), {{9}, {42}}, d, 1, 3, 0.5f), "site");
}

CONFORMANCE_TEST(masksHaveTheirRates) {
  const int64_t d = 128;
  const Batch batch = {std::vector<int32_t>(100, 20), {}};
  Batch filled = batch;
  for (int32_t u = 0; u < 100; ++u) filled.ids.push_back(u);
  const int64_t count = 2000 * d;
  for (const float rate : {0.0f, 0.1f, 0.9f}) {
    const auto y = dropout(context, ones(count), filled, d, 1, 1, rate);
    double kept = 0;
    for (const float value : y) {
      expect(value == 0 || std::abs(value - 1 / (1 - rate)) < 1e-5f, "a kept value is x / (1 - rate)");
      kept += value != 0;
    }
    const double deviation = std::sqrt(static_cast<double>(count * (rate + 1e-12) * (1 - rate)));
    expect(std::abs(kept - static_cast<double>(count) * (1 - static_cast<double>(rate))) <= 5 * deviation + 1e-3,
           "kept " + std::to_string(kept) + " at rate " + std::to_string(rate));
  }
  const auto y = jitter(context, ones(count), filled, d, 1, 1, 0.25f);
  double sum = 0, squares = 0;
  for (const float value : y) {
    expect(value >= 0.75f && value <= 1.25f, "jitter within its bounds");
    sum += value - 1;
    squares += (value - 1) * (value - 1);
  }
  const auto n = static_cast<double>(count);
  expect(std::abs(sum / n) < 5 * 0.25 / std::sqrt(3 * n), "mean of the jitter");
  expect(std::abs(squares / n * 3 / 0.0625 - 1) < 0.01, "variance of the jitter");
}

CONFORMANCE_TEST(masksRefuse) {
  const Batch batch = {{2}, {0}};
  const auto call = [&](int64_t step, int64_t site, float rate) {
    return [&context, &batch, step, site, rate] { dropout(context, ones(6), batch, 3, step, site, rate); };
  };
  expectError("INVALID_ARGUMENT", call(0, 0, 1.0f), "rate 1");
  expectError("INVALID_ARGUMENT", call(0, 0, -0.1f), "a negative rate");
  expectError("INVALID_ARGUMENT", call(0, 0, NAN), "rate NaN");
  expectError("INVALID_ARGUMENT", call(-1, 0, 0.1f), "step -1");
  expectError("INVALID_ARGUMENT", call(0, 1 << 24, 0.1f), "site 2^24");
  expectError("SHAPE_MISMATCH", [&] { dropout(context, ones(5), batch, 3, 0, 0, 0.1f); }, "a short x");
  expectError("INVALID_ARGUMENT", [&] { dropout(context, ones(3), {{2, -1}, {0, 1}}, 3, 0, 0, 0.1f); }, "offsets");
  expect(dropout(context, {}, {{}, {}}, 3, 0, 0, 0.1f).empty(), "no units");
  expect(dropout(context, {}, {{0, 0}, {1, 2}}, 3, 0, 0, 0.1f).empty(), "empty units");
}

}  // namespace dp_moe::conformance
