#pragma once

#include <cmath>
#include <limits>

#include "batches.h"

// Batches of segments for the ops that work on gradients: every unit brings, for every expert, rows of x [*, d] and of
// dy [*, p]. A dense layer is one expert.

namespace dp_moe::conformance {

/// Sizes below, at and above vectors, panels and tiles.
inline std::vector<int64_t> raggedSizes() { return {1, 7, 16, 17, 63, 64, 65, 129}; }

/// The rows of one unit, [experts] parts of each operand.
struct UnitRows {
  std::vector<std::vector<float>> x;
  std::vector<std::vector<float>> dy;
};

inline UnitRows randomUnit(Random& random, const std::vector<int32_t>& rowsOfExperts, int64_t d, int64_t p) {
  UnitRows unit;
  for (const int32_t rows : rowsOfExperts) {
    unit.x.push_back(random.normals(rows * d));
    unit.dy.push_back(random.normals(rows * p));
  }
  return unit;
}

struct SegmentBatch {
  int64_t d;
  int64_t p;
  int64_t units;
  int64_t experts;
  std::vector<float> x;
  std::vector<float> dy;
  std::vector<int32_t> offsets;  // [experts * units + 1]

  int64_t segments() const { return experts * units; }
  int64_t rows() const { return offsets.back(); }
  int64_t rowsOf(int64_t segment) const {
    return offsets[static_cast<size_t>(segment) + 1] - offsets[static_cast<size_t>(segment)];
  }
  const float* xOf(int64_t segment) const { return x.data() + offsets[static_cast<size_t>(segment)] * d; }
  const float* dyOf(int64_t segment) const { return dy.data() + offsets[static_cast<size_t>(segment)] * p; }
};

/// The batch of these units, rows sorted by (expert, unit).
inline SegmentBatch assemble(const std::vector<UnitRows>& units, int64_t experts, int64_t d, int64_t p) {
  SegmentBatch batch{d, p, static_cast<int64_t>(units.size()), experts, {}, {}, {0}};
  for (size_t expert = 0; expert < static_cast<size_t>(experts); ++expert) {
    for (const UnitRows& unit : units) {
      batch.x.insert(batch.x.end(), unit.x[expert].begin(), unit.x[expert].end());
      batch.dy.insert(batch.dy.end(), unit.dy[expert].begin(), unit.dy[expert].end());
      batch.offsets.push_back(static_cast<int32_t>(static_cast<int64_t>(batch.x.size()) / d));
    }
  }
  return batch;
}

/// A batch whose segments have these numbers of rows, expert-major.
inline SegmentBatch randomBatch(Random& random, const std::vector<int32_t>& lengths, int64_t experts, int64_t d,
                                int64_t p) {
  const auto offsets = offsetsOf(lengths);
  const auto units = static_cast<int64_t>(lengths.size()) / experts;
  return {d, p, units, experts, random.normals(offsets.back() * d), random.normals(offsets.back() * p), offsets};
}

/// The batch as T stores it.
template <class T>
SegmentBatch stored(SegmentBatch batch) {
  batch.x = rounded<T>(batch.x);
  batch.dy = rounded<T>(batch.dy);
  return batch;
}

/// " bfloat16" where T is.
template <class T>
inline constexpr const char* typeName = std::is_same_v<T, bfloat16> ? " bfloat16" : "";

/// x in another order, with the rows that lead back to it; x rows that no row points to are NaN.
struct GatheredRows {
  std::vector<float> x;
  std::vector<int32_t> rows;
};
inline GatheredRows scattered(Random& random, const std::vector<float>& x, int64_t d) {
  const auto count = static_cast<int32_t>(static_cast<int64_t>(x.size()) / d);
  GatheredRows result{std::vector<float>(static_cast<size_t>((2 * count + 1) * d), NAN), {}};
  std::vector<int32_t> places(static_cast<size_t>(2 * count + 1));
  std::iota(places.begin(), places.end(), 0);
  for (int32_t r = 0; r < count; ++r) {
    std::swap(places[static_cast<size_t>(r)], places[static_cast<size_t>(r + random.below(2 * count + 1 - r))]);
    const int32_t place = places[static_cast<size_t>(r)];
    result.rows.push_back(place);
    std::copy(x.begin() + r * d, x.begin() + (r + 1) * d, result.x.begin() + place * d);
  }
  return result;
}

/// A batch in which one unit stands among certain neighbours.
struct Setting {
  std::string name;
  std::vector<UnitRows> units;
  size_t own;
};

/// The same unit among other units: those changed, removed, blanked, moved, lengthened.
inline std::vector<Setting> settingsOf(const UnitRows& own, Random& random, int64_t experts, int64_t d, int64_t p) {
  const auto other = [&](int32_t most) {
    std::vector<int32_t> rows(static_cast<size_t>(experts));
    for (int32_t& n : rows) n = random.below(most + 1);
    return randomUnit(random, rows, d, p);
  };
  const auto filled = [&](float value) {
    UnitRows unit = other(9);
    for (auto& part : unit.x) std::fill(part.begin(), part.end(), value);
    for (auto& part : unit.dy) std::fill(part.begin(), part.end(), value);
    return unit;
  };
  const UnitRows empty = randomUnit(random, std::vector<int32_t>(static_cast<size_t>(experts)), d, p);
  const UnitRows a = other(5), b = other(40), c = other(2);
  UnitRows longer = b;
  for (size_t e = 0; e < static_cast<size_t>(experts); ++e) {
    longer.x[e].insert(longer.x[e].end(), b.x[e].begin(), b.x[e].end());
    longer.dy[e].insert(longer.dy[e].end(), b.dy[e].begin(), b.dy[e].end());
  }
  std::vector<UnitRows> many(70, a);
  many[33] = own;
  return {{"among others", {a, own, b, c}, 1},
          {"alone", {own}, 0},
          {"others blanked", {empty, own, empty, empty}, 1},
          {"others moved", {c, b, a, own}, 3},
          {"others lengthened", {longer, own, longer, longer}, 1},
          {"others replaced", {other(64), own, other(3), other(17)}, 1},
          {"others NaN", {filled(NAN), own, filled(std::numeric_limits<float>::infinity()), filled(NAN)}, 1},
          {"others huge", {filled(1e30f), own, filled(-1e30f), filled(1e38f)}, 1},
          {"many others", many, 33}};
}

/// What `make` makes, kept for the other runs of a test: a reference depends on no instruction set and no thread count.
/// `name` tells it from the others made at the same place.
template <class Make>
const auto& once(const std::string& name, Make make) {
  static std::map<std::string, decltype(make())> known;
  const auto found = known.find(name);
  return found != known.end() ? found->second : known.emplace(name, make()).first->second;
}

/// A sum and the sum of its terms' magnitudes, which its rounding error is relative to.
struct Sum {
  double value = 0;
  double magnitude = 0;
  void add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

/// Every element within the rounding of a float32 sum of `terms` terms in some order; `storage`: the most by which it
/// was then rounded, relative to it.
inline void expectSums(const std::vector<float>& actual, const std::vector<Sum>& expected, int64_t terms,
                       const std::string& what, double storage = 0) {
  expect(actual.size() == expected.size(), what + ": sizes differ");
  const double tolerance = 0x1p-24 * (4 + 4 * std::sqrt(static_cast<double>(terms)));
  for (size_t i = 0; i < actual.size(); ++i) {
    const double off = std::abs(static_cast<double>(actual[i]) - expected[i].value);
    if (off <= tolerance * expected[i].magnitude + storage * std::abs(expected[i].value) + 1e-44) continue;
    throw Failure(
        label(what, ": element ", i, ": expected ", expected[i].value, ", got ", actual[i], ", off by ", off));
  }
}

/// dy' x of each segment in float64, [p * d] with magnitudes.
inline std::vector<Sum> segmentGradient(const SegmentBatch& batch, int64_t segment) {
  std::vector<Sum> gradient(static_cast<size_t>(batch.p * batch.d));
  for (int64_t r = 0; r < batch.rowsOf(segment); ++r) {
    for (int64_t i = 0; i < batch.p; ++i) {
      const double left = batch.dyOf(segment)[r * batch.p + i];
      Sum* row = gradient.data() + i * batch.d;
      for (int64_t j = 0; j < batch.d; ++j) row[j].add(left * static_cast<double>(batch.xOf(segment)[r * batch.d + j]));
    }
  }
  return gradient;
}

inline double squaredNorm(const std::vector<Sum>& values) {
  double sum = 0;
  for (const Sum& value : values) sum += value.value * value.value;
  return sum;
}

/// What the norms promise: never short by more than 1e-5, never over by 2e-3.
inline void expectNorms(const std::vector<double>& actual, const std::vector<double>& exact, const std::string& what) {
  expect(actual.size() == exact.size(), what + ": sizes differ");
  for (size_t u = 0; u < actual.size(); ++u) {
    expect(actual[u] >= exact[u] * (1 - 1e-5) && actual[u] <= exact[u] * (1 + 2e-3),
           label(what, ": unit ", u, ": the squared norm is ", exact[u], ", got ", actual[u], ", a ratio of 1 + ",
                 actual[u] / exact[u] - 1));
  }
}

}  // namespace dp_moe::conformance
