#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "harness.h"
#include "random/chacha.h"
#include "random/gaussian.h"
#include "random/os_key.h"
#include "random/poisson.h"

namespace dp_moe::conformance {

namespace {

bool firstRun(const Context& context) {
  static bool ran = false;
  return context.instructionSet() == "base" && !std::exchange(ran, true);
}

std::vector<int32_t> testKey(uint32_t seed) {
  std::vector<int32_t> key(8);
  for (uint32_t i = 0; i < 8; ++i) key[i] = static_cast<int32_t>(seed * 2654435761u + i * 0x9e3779b9u);
  return key;
}

const uint32_t* words(const std::vector<int32_t>& key) { return reinterpret_cast<const uint32_t*>(key.data()); }

std::vector<float> draw(const Context& context, const std::vector<int32_t>& key, int64_t first, int64_t size,
                        int64_t step, int64_t stream) {
  auto y = context.result<float>(size);
  context.backend().gaussian({context.tensor(key), y, first, size, step, stream});
  return y.values();
}

double normalCdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

/// sqrt(n) times the greatest distance between the empirical distribution and N(0, 1).
double kolmogorov(std::vector<float> z) {
  std::sort(z.begin(), z.end());
  const auto n = static_cast<double>(z.size());
  double worst = 0;
  for (size_t i = 0; i < z.size(); ++i) {
    const double p = normalCdf(static_cast<double>(z[i]));
    worst = std::max({worst, p - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - p});
  }
  return worst * std::sqrt(n);
}

}  // namespace

CONFORMANCE_TEST(chachaVectorsOfTheRfc) {
  if (!firstRun(context)) return;
  // RFC 8439, 2.3.2: key 00 01 .. 1f, counter 1, nonce 00:00:00:09:00:00:00:4a:00:00:00:00.
  uint32_t key[8];
  for (uint32_t i = 0; i < 8; ++i) key[i] = 0x03020100 + i * 0x04040404;
  const uint32_t expected[16] = {0xe4e7f110, 0x15593bd1, 0x1fdd0f50, 0xc47120a3, 0xc7f4d1c7, 0x0368c033,
                                 0x9aaa2204, 0x4e6cd4c3, 0x466482d2, 0x09aa9f07, 0x05d7c214, 0xa2028bd9,
                                 0xd19c12b5, 0xb94e16de, 0xe883d0cb, 0x4e3c50a2};
  uint32_t block[16];
  chachaBlock(key, {1, 0x09000000, 0x4a000000, 0}, block);
  expectSameBits(block, expected, sizeof block, "section 2.3.2");
  // Appendix A.1, test vectors 1 and 2: key and nonce 0, counters 0 and 1.
  const uint32_t zero[8] = {};
  const uint32_t first[4] = {0xade0b876, 0x903df1a0, 0xe56a5d40, 0x28bd8653};
  const uint32_t second[4] = {0xbee7079f, 0x7a385155, 0x7c97ba98, 0x0d082d73};
  chachaBlock(zero, {0, 0, 0, 0}, block);
  expectSameBits(block, first, sizeof first, "A.1, vector 1");
  chachaBlock(zero, {1, 0, 0, 0}, block);
  expectSameBits(block, second, sizeof second, "A.1, vector 2");
}

CONFORMANCE_TEST(gaussianIsItsReference) {
  const auto key = testKey(1);
  // The first 700 elements, and some far up the stream, by the C library's functions.
  for (const int64_t first : {INT64_C(0), INT64_C(12345677), kMaxNormals - 700}) {
    const auto z = draw(context, key, first, 700, 3, 5);
    std::vector<double> expected(700);
    for (int64_t i = 0; i < 700; ++i) expected[static_cast<size_t>(i)] = gaussianReference(words(key), 3, 5, first + i);
    expectNear(z, expected, 6e-8, 0, "gaussian");
    static std::map<int64_t, std::vector<float>> sets;  // every instruction set gives the same bits
    const auto [entry, isNew] = sets.try_emplace(first, z);
    expectSame(z, entry->second, "gaussian on another instruction set");
  }
}

// One stream, the same bits on every instruction set and on CUDA: a run can move between devices.
CONFORMANCE_TEST(gaussianBitsAreTheSameEverywhere) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const float z : draw(context, testKey(8), 0, 1 << 17, 3, 5)) {
    uint32_t bits;
    std::memcpy(&bits, &z, sizeof bits);
    for (int byte = 0; byte < 4; ++byte) hash = (hash ^ (bits >> 8 * byte & 0xff)) * 0x100000001b3;
  }
  expect(hash == 0x77d1cd0c982b2214, label("the hash of the stream is ", std::hex, hash));
}

CONFORMANCE_TEST(gaussianElementsDoNotDependOnTheRange) {
  const auto key = testKey(2);
  const auto all = draw(context, key, 0, 20000, 1, 0);
  for (const int64_t first : {1, 127, 128, 129, 5000, 19999}) {
    const auto part = draw(context, key, first, std::min<int64_t>(9000, 20000 - first), 1, 0);
    expectSame(part, std::vector<float>(all.begin() + first, all.begin() + first + static_cast<int64_t>(part.size())),
               "a range of the stream");
  }
  context.sameInEveryRun("gaussian", all);
  expect(draw(context, key, 5, 0, 1, 0).empty(), "an empty range");
}

CONFORMANCE_TEST(gaussianStreamsDiffer) {
  const auto base = draw(context, testKey(3), 0, 256, 1, 2);
  const std::vector<std::vector<float>> others = {
      draw(context, testKey(4), 0, 256, 1, 2),          draw(context, testKey(3), 0, 256, 2, 2),
      draw(context, testKey(3), 0, 256, 1, 3),          draw(context, testKey(3), 256, 256, 1, 2),
      draw(context, testKey(3), 0, 256, 1, 0x80000002), draw(context, testKey(3), 0, 256, 2, 1)};
  for (const auto& other : others) {
    for (size_t i = 0; i < 256; ++i) expect(base[i] != other[i], "two streams share an element");
  }
}

CONFORMANCE_TEST(gaussianDistribution) {
  constexpr int64_t kDraws = 1 << 22;
  const auto z = draw(context, testKey(5), 0, kDraws, 9, 1);
  double moments[5] = {};
  double neighbour[3] = {};
  int64_t beyond3 = 0, beyond4 = 0, beyond5 = 0;
  for (size_t i = 0; i < z.size(); ++i) {
    const auto x = static_cast<double>(z[i]);
    double power = 1;
    for (double& moment : moments) {
      moment += power / kDraws;
      power *= x;
    }
    const size_t lags[3] = {1, 16, 128};  // neighbours, the other normal of a pair, the next group
    for (int l = 0; l < 3; ++l) neighbour[l] += x * static_cast<double>(z[(i + lags[l]) % z.size()]) / kDraws;
    beyond3 += std::abs(x) > 3;
    beyond4 += std::abs(x) > 4;
    beyond5 += std::abs(x) > 5;
  }
  // Five standard deviations of each statistic: sd of z^k's mean is sqrt(E z^2k - (E z^k)^2) / sqrt(n).
  const double unit = 5 / std::sqrt(static_cast<double>(kDraws));
  expect(std::abs(moments[1]) < unit, "mean " + std::to_string(moments[1]));
  expect(std::abs(moments[2] - 1) < unit * std::sqrt(2), "variance " + std::to_string(moments[2]));
  expect(std::abs(moments[3]) < unit * std::sqrt(15), "third moment " + std::to_string(moments[3]));
  expect(std::abs(moments[4] - 3) < unit * std::sqrt(96), "fourth moment " + std::to_string(moments[4]));
  for (const double c : neighbour) expect(std::abs(c) < unit, "autocorrelation " + std::to_string(c));
  const auto tail = [&](int64_t count, double deviations) {
    const double mean = kDraws * 2 * normalCdf(-deviations);
    expect(std::abs(static_cast<double>(count) - mean) < 5 * std::sqrt(mean) + 1,
           "beyond " + std::to_string(deviations) + ": " + std::to_string(count) + " of " + std::to_string(mean));
  };
  tail(beyond3, 3);
  tail(beyond4, 4);
  tail(beyond5, 5);
  // P(Kolmogorov's statistic > 2.2) = 1.3e-4; the key is fixed, so this cannot fail by chance.
  expect(kolmogorov(z) < 2.2, "Kolmogorov-Smirnov");
  // A coarse uniform would repeat values: with 53 bits a million floats repeat only as floats must.
  std::set<float> large;
  int64_t repeats = 0;
  for (const float x : z) {
    if (std::abs(x) > 4) repeats += !large.insert(x).second;
  }
  expect(repeats <= 2, "values beyond 4 repeat " + std::to_string(repeats) + " times");
}

CONFORMANCE_TEST(gaussianRefusesWhatWouldRepeat) {
  const auto key = testKey(1);
  auto& backend = context.backend();
  auto y = context.result<float>(4);
  const auto call = [&](int64_t keyWords, int64_t first, int64_t size, int64_t step, int64_t stream) {
    return [&backend, &context, &key, &y, keyWords, first, size, step, stream] {
      const auto short_ = std::vector<int32_t>(key.begin(), key.begin() + keyWords);
      backend.gaussian({context.tensor(short_), y, first, size, step, stream});
    };
  };
  expectError("SHAPE_MISMATCH", call(7, 0, 4, 0, 0), "a short key");
  expectError("SHAPE_MISMATCH", call(8, 0, 5, 0, 0), "a short y");
  expectError("INVALID_ARGUMENT", call(8, 0, 4, INT64_C(1) << 32, 0), "a step of 2^32");
  expectError("INVALID_ARGUMENT", call(8, 0, 4, -1, 0), "a negative step");
  expectError("INVALID_ARGUMENT", call(8, 0, 4, 0, INT64_C(1) << 32), "a stream of 2^32");
  expectError("INVALID_ARGUMENT", call(8, kMaxNormals - 3, 4, 0, 0), "the end of the stream");
  call(8, kMaxNormals - 4, 4, 0, 0)();
}

CONFORMANCE_TEST(poissonSampling) {
  if (context.instructionSet() != "base") return;
  const auto key = testKey(6);
  // The edge cases of its guarantee.
  expect(poissonSample(words(key), 1, 1000, 0).empty(), "q = 0");
  expect(poissonSample(words(key), 1, 0, 0.5).empty(), "population 0");
  const auto all = poissonSample(words(key), 1, 1001, 1);
  expect(all.size() == 1001 && all.front() == 0 && all.back() == 1000, "q = 1");
  for (const double q : {-1e-9, 1.0000001, std::nan("")}) {
    expectError("INVALID_ARGUMENT", [&] { poissonSample(words(key), 1, 10, q); }, "q out of range");
  }
  expectError("INVALID_ARGUMENT", [&] { poissonSample(words(key), 1, -1, 0.1); }, "population -1");
  expectError("INVALID_ARGUMENT", [&] { poissonSample(words(key), 1, INT64_C(1) << 31, 0.1); }, "population 2^31");
  expectError("INVALID_ARGUMENT", [&] { poissonSample(words(key), UINT64_C(1) << 32, 10, 0.1); }, "step 2^32");

  // A unit's fate is its own: not that of the population or of the other units.
  const auto sample = poissonSample(words(key), 7, 10007, 0.1);
  std::vector<int32_t> expected;
  for (uint32_t u = 0; u < 10007; ++u) {
    if (samplingUniform(words(key), 7, u) < 0.1) expected.push_back(static_cast<int32_t>(u));
  }
  expectSame(sample, expected, "the units with a uniform below q");
  auto shorter = expected;
  while (shorter.back() >= 5003) shorter.pop_back();
  expectSame(poissonSample(words(key), 7, 5003, 0.1), shorter, "a smaller population");

  // Sizes and pairs over many steps: binomial, and units independent between steps.
  constexpr int kSteps = 2000;
  constexpr int kUnits = 500;
  constexpr double q = 0.2;
  double size = 0, squares = 0, both = 0;
  std::vector<int> times(kUnits);
  std::set<int32_t> earlier;
  for (int step = 0; step < kSteps; ++step) {
    const auto units = poissonSample(words(key), static_cast<uint64_t>(step), kUnits, q);
    size += static_cast<double>(units.size());
    squares += std::pow(static_cast<double>(units.size()) - kUnits * q, 2);
    for (const int32_t u : units) {
      ++times[static_cast<size_t>(u)];
      both += earlier.contains(u);
    }
    earlier = std::set<int32_t>(units.begin(), units.end());
  }
  constexpr double kDraws = 1.0 * kSteps * kUnits;
  expect(std::abs(size / kDraws - q) < 5 * std::sqrt(q * (1 - q) / kDraws), "the rate");
  expect(std::abs(squares / kSteps / (kUnits * q * (1 - q)) - 1) < 5 * std::sqrt(2.0 / kSteps), "the size's variance");
  expect(std::abs(both / kDraws - q * q) < 5 * std::sqrt(q * q / kDraws), "units in two steps running");
  for (const int count : times) {
    expect(std::abs(count - kSteps * q) < 5.5 * std::sqrt(kSteps * q * (1 - q)), "a unit is favoured");
  }
}

CONFORMANCE_TEST(operatingSystemKey) {
  if (context.instructionSet() != "base") return;
  uint8_t a[32] = {}, b[32] = {};
  randomKey(a);
  randomKey(b);
  expect(!std::equal(a, a + 32, b), "two keys are equal");
}

}  // namespace dp_moe::conformance
