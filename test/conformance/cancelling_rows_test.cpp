#include "segments.h"

// Rows of one unit that cancel: what is left of them is far smaller than what it is summed from. A unit must add to the
// sum what its norm was taken of, and leave what others add as it is.

namespace dp_moe::conformance {

namespace {

/// How much a unit's rows are and what is left of their sum.
struct Cancelling {
  int32_t rows;
  double scale;
  double left;  // relative to a row
};

/// Rows of one input whose output gradients cancel but for `left` of each: first the half of one sign, so that the sum
/// grows as large as it can, and with an odd number of rows a small one before the other half. Rows are of several
/// sizes: doubles lose digits of their sum too.
template <class T>
UnitRows cancellingUnit(Random& random, const Cancelling& how, int64_t d, int64_t p) {
  const auto x = random.normals(d), odd = random.normals(how.rows % 2 * p);
  auto half = random.normals(how.rows / 2 * p);
  for (size_t i = 0; i < half.size(); ++i)
    half[i] *= std::pow(1e-4f, static_cast<float>(i / static_cast<size_t>(p) % 6));
  std::vector<float> dy, xs;
  const auto add = [&](const std::vector<float>& rows, double scale) {
    for (const float value : rows) dy.push_back(static_cast<float>(scale * static_cast<double>(value)));
  };
  add(half, how.scale);
  add(odd, how.left);
  add(half, how.scale * (how.left - 1));
  for (int32_t r = 0; r < how.rows; ++r) xs.insert(xs.end(), x.begin(), x.end());
  return {{rounded<T>(xs)}, {rounded<T>(dy)}};
}

std::vector<Cancelling> waysToCancel() {
  return {{2, 1e10, 0},     {2, 1, 1e-5},     {3, 1e4, 1e-3}, {6, 1e7, 1e-6}, {6, 1, 0.03},   {16, 1e12, 0.1},
          {9, 1e18, 1e-18}, {300, 1e6, 1e-4}, {5, 1, 1},      {1, 1, 1},      {40, 1e5, 1e-5}};
}

/// Units of waysToCancel, each among ordinary ones.
template <class T>
std::vector<UnitRows> unitsThatCancel(Random& random, int64_t d, int64_t p) {
  std::vector<UnitRows> units;
  for (const Cancelling& how : waysToCancel()) {
    units.push_back(cancellingUnit<T>(random, how, d, p));
    units.push_back(randomUnit(random, {random.below(9)}, d, p));
    units.back().x[0] = rounded<T>(units.back().x[0]);
    units.back().dy[0] = rounded<T>(units.back().dy[0]);
  }
  return units;
}

double norm(const float* row, int64_t columns) {
  double sum = 0;
  for (int64_t i = 0; i < columns; ++i) sum += static_cast<double>(row[i]) * static_cast<double>(row[i]);
  return std::sqrt(sum);
}

/// sum over the segment's rows of |dy| |x|
double massOf(const SegmentBatch& batch, int64_t segment) {
  double sum = 0;
  for (int64_t r = 0; r < batch.rowsOf(segment); ++r) {
    sum += norm(batch.dyOf(segment) + r * batch.p, batch.p) * norm(batch.xOf(segment) + r * batch.d, batch.d);
  }
  return sum;
}

double norm(const std::vector<float>& values) { return norm(values.data(), static_cast<int64_t>(values.size())); }

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

/// The factors of clipping to 1 and, one unit at a time, the others' factors.
std::vector<float> factorsOf(const std::vector<double>& normSquared) {
  std::vector<float> factors;
  for (const double squared : normSquared) {
    factors.push_back(static_cast<float>(std::min(1.0, (1 - 0x1p-10) / std::sqrt(squared))));
  }
  return factors;
}

/// Norms, and the gradient with any factors, of one op.
template <class Gradient>
void expectBoundedSums(const std::vector<double>& normSquared, Gradient gradient, const std::string& name) {
  // Alone, a unit adds what its norm says.
  for (size_t u = 0; u < normSquared.size(); ++u) {
    std::vector<float> only(normSquared.size());
    only[u] = 1;
    const double added = norm(gradient(only)), promised = std::sqrt(normSquared[u]);
    expect(added <= promised * (1 + 0x1p-11), label(name, ": unit ", u, " adds ", added, ", its norm is ", promised));
  }
  // Among others that cancel too, it moves the sum by no more than the bound.
  const auto factors = factorsOf(normSquared);
  const auto all = gradient(factors);
  for (size_t u = 0; u < normSquared.size(); ++u) {
    auto others = factors;
    others[u] = 0;
    const double moved = distance(all, gradient(others));
    expect(moved <= 1, label(name, ": unit ", u, " moves the sum by ", moved));
  }
}

}  // namespace

CONFORMANCE_TEST(weightGradientOfRowsThatCancel) {
  context.forEachReal([&]<class T>() {
    const double roundings = std::is_same_v<T, float> ? 4 : 36;
    for (const auto& [d, p] : std::vector<std::pair<int64_t, int64_t>>{{64, 65}, {24, 8}, {300, 136}, {129, 1}}) {
      Random random(static_cast<uint64_t>(d + p));
      const SegmentBatch batch = assemble(unitsThatCancel<T>(random, d, p), 1, d, p);
      const GatheredRows gathered = scattered(random, batch.x, d);
      const auto name = label("rows that cancel, d ", d, ", p ", p, typeName<T>);
      const auto dy = context.tensor<T>(batch.dy), x = context.tensor<T>(gathered.x);
      const auto rows = context.tensor(gathered.rows), offsets = context.tensor(batch.offsets);
      const auto norms = context.tensor(std::vector<double>(static_cast<size_t>(batch.units)));
      const auto tileOf = context.result<int32_t>(batch.segments());
      const auto tiles = context.result<float>(batch.units * p * d);
      context.backend().segmentGradientNorms(
          {dy, x, rows, offsets, norms, tileOf, tiles, batch.rows(), p, d, batch.units, batch.units, batch.units});
      const auto normSquared = norms.values();
      const auto forms = tileOf.values();
      context.sameInEveryRun(name, normSquared);

      int64_t cancelling = 0;
      for (int64_t s = 0; s < batch.segments(); ++s) {
        const auto at = static_cast<size_t>(s);
        const double mass = massOf(batch, s), value = std::sqrt(normSquared[at]);
        const double exact = std::sqrt(squaredNorm(once(label(name, s), [&] { return segmentGradient(batch, s); })));
        const auto what = label(name, ": the norm of unit ", s, ", ", batch.rowsOf(s), " rows, is ", exact, ", got ",
                                value, ", the mass ", mass);
        if (forms[at] == -1) {
          expect(mass <= 41 * exact, what + ", from rows that cancel");
          expect(value >= exact * (1 - 1e-13) && value <= exact * (1 + 1.1e-3), what);
        } else {
          const double bound = (static_cast<double>(batch.rowsOf(s)) + roundings) * 0x1p-23 * mass;
          expect(std::abs(value - exact) <= bound * (1 + 1e-6), what + label(", off by more than ", bound));
          cancelling += forms[at] == kTileOfRows;
        }
      }
      expect(p == 1 || cancelling >= 3, label(name, ": ", cancelling, " segments were found to cancel"));

      const auto gradientOf = [&](const std::vector<float>& factors) {
        const auto factor = context.tensor(factors),
                   gradient = context.tensor(std::vector<float>(static_cast<size_t>(p * d)));
        context.backend().weightGradient(
            {dy, x, rows, offsets, factor, tileOf, tiles, gradient, batch.rows(), p, d, batch.units, batch.units});
        return gradient.values();
      };
      expectBoundedSums(normSquared, gradientOf, name);
      context.sameInEveryRun("sums, " + name, gradientOf(factorsOf(normSquared)));

      // Where a tile is made of rows, what is added is what the norm was taken of.
      for (size_t u = 0; u < forms.size(); ++u) {
        if (forms[u] == -1) continue;
        std::vector<float> only(forms.size());
        only[u] = 1;
        const double added = norm(gradientOf(only));
        expect(std::abs(added * added - normSquared[u]) <= 1e-12 * normSquared[u],
               label(name, ": unit ", u, " adds ", added, ", its norm is ", std::sqrt(normSquared[u])));
      }
    }
  });
}

// Each expert's segments that cancel go to its own gradient.
CONFORMANCE_TEST(weightGradientOfExpertsWhoseRowsCancel) {
  context.forEachReal([&]<class T>() {
    const int64_t d = 40, p = 72;
    Random random(8);
    std::vector<UnitRows> units(7);
    for (const int expert : {0, 1, 2}) {
      for (size_t u = 0; u < units.size(); ++u) {
        const bool cancels = (u + static_cast<size_t>(expert)) % 3 == 0;
        const UnitRows part = cancels ? cancellingUnit<T>(random, {4, 1e8, 1e-4}, d, p)
                                      : randomUnit(random, {static_cast<int32_t>(u)}, d, p);
        units[u].x.push_back(rounded<T>(part.x[0]));
        units[u].dy.push_back(rounded<T>(part.dy[0]));
      }
    }
    const SegmentBatch batch = assemble(units, 3, d, p);
    const auto dy = context.tensor<T>(batch.dy), x = context.tensor<T>(batch.x);
    const auto offsets = context.tensor(batch.offsets);
    const auto norms = context.tensor(std::vector<double>(units.size()));
    const auto tileOf = context.result<int32_t>(batch.segments());
    const auto tiles = context.result<float>(0);
    context.backend().segmentGradientNorms({dy, x, context.none<int32_t>(), offsets, norms, tileOf, tiles, batch.rows(),
                                            p, d, batch.segments(), batch.units, 0});
    const auto forms = tileOf.values();
    for (int64_t s = 0; s < batch.segments(); ++s) {
      const bool cancels = (s % 7 + s / 7) % 3 == 0;
      expect(forms[static_cast<size_t>(s)] == (cancels ? kTileOfRows : -1),
             label("segment ", s, typeName<T>, " has the form ", forms[static_cast<size_t>(s)]));
    }
    const auto gradientOf = [&](const std::vector<float>& factors) {
      const auto factor = context.tensor(factors),
                 gradient = context.tensor(std::vector<float>(static_cast<size_t>(3 * p * d)));
      context.backend().weightGradient({dy, x, context.none<int32_t>(), offsets, factor, tileOf, tiles, gradient,
                                        batch.rows(), p, d, batch.segments(), batch.units});
      return gradient.values();
    };
    expectBoundedSums(norms.values(), gradientOf, label("experts", typeName<T>));
    // Units 0, 3 and 6 cancel at expert 0, unit 1 at expert 2, and so on.
    std::vector<float> only(units.size());
    only[1] = 1;
    const auto gradient = gradientOf(only);
    for (int64_t expert = 0; expert < 3; ++expert) {
      const auto& exact =
          once(label("expert ", expert, typeName<T>), [&] { return segmentGradient(batch, expert * 7 + 1); });
      expectSums({gradient.begin() + expert * p * d, gradient.begin() + (expert + 1) * p * d}, exact, 4,
                 label("unit 1 at expert ", expert, typeName<T>));
    }
  });
}

CONFORMANCE_TEST(biasGradientOfRowsThatCancel) {
  context.forEachReal([&]<class T>() {
    for (const int64_t p : {1, 8, 65, 300}) {
      Random random(static_cast<uint64_t>(p));
      const SegmentBatch batch = assemble(unitsThatCancel<T>(random, 1, p), 1, 1, p);
      const auto dy = context.tensor<T>(batch.dy);
      const auto offsets = context.tensor(batch.offsets);
      const auto norms = context.tensor(std::vector<double>(static_cast<size_t>(batch.units)));
      context.backend().segmentBiasNorms({dy, offsets, norms, batch.rows(), p, batch.units, batch.units});
      const auto gradientOf = [&](const std::vector<float>& factors) {
        const auto factor = context.tensor(factors),
                   gradient = context.tensor(std::vector<float>(static_cast<size_t>(p)));
        context.backend().biasGradient({dy, offsets, factor, gradient, batch.rows(), p, batch.units, batch.units});
        return gradient.values();
      };
      expectBoundedSums(norms.values(), gradientOf, label("bias of rows that cancel, p ", p, typeName<T>));
    }
    // What double loses too, and what float32 cannot hold: 2^90 + 1 - 2^90 is 0 for both ops, or 1 for both.
    const float large = 0x1p90f, huge = 3e38f;
    const std::vector<float> rows = {large, 1, -large, huge, huge};
    const auto dy = context.tensor<T>(rows);
    const auto offsets = context.tensor(std::vector<int32_t>{0, 3, 5});
    const auto norms = context.tensor(std::vector<double>(2));
    context.backend().segmentBiasNorms({dy, offsets, norms, 5, 1, 2, 2});
    const auto normSquared = norms.values();
    const auto factor = context.tensor(factorsOf(normSquared)), gradient = context.tensor(std::vector<float>(1));
    context.backend().biasGradient({dy, offsets, factor, gradient, 5, 1, 2, 2});
    const double sum = gradient.values()[0], first = std::min(1.0, std::sqrt(normSquared[0]));
    expect(std::abs(sum - first - 1) < 0x1p-9, label("two units of norm ", first, " and more than 1 add ", sum));
  });
}

CONFORMANCE_TEST(embeddingGradientOfRowsThatCancel) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {1, 17, 64, 200}) {
      for (const int32_t vocabulary : {1, 3}) {
        Random random(static_cast<uint64_t>(d));
        const SegmentBatch batch = assemble(unitsThatCancel<T>(random, 1, d), 1, 1, d);
        // Pairs that cancel share an id; with three ids, pairs go round.
        std::vector<int32_t> ids;
        for (int64_t s = 0; s < batch.segments(); ++s) {
          for (int64_t r = 0; r < batch.rowsOf(s); ++r) ids.push_back(static_cast<int32_t>(r / 2 % vocabulary));
        }
        const auto dy = context.tensor<T>(batch.dy);
        const auto id = context.tensor(ids), offsets = context.tensor(batch.offsets);
        const auto norms = context.tensor(std::vector<double>(static_cast<size_t>(batch.units)));
        context.backend().embeddingGradientNorms({dy, id, offsets, norms, batch.rows(), d, batch.units});
        const auto gradientOf = [&](const std::vector<float>& factors) {
          const auto factor = context.tensor(factors),
                     gradient = context.tensor(std::vector<float>(static_cast<size_t>(vocabulary * d)));
          context.backend().embeddingGradient(
              {dy, id, offsets, factor, gradient, batch.rows(), d, batch.units, vocabulary});
          return gradient.values();
        };
        const auto name = label("embedding of rows that cancel, d ", d, ", ", vocabulary, " ids", typeName<T>);
        expectBoundedSums(norms.values(), gradientOf, name);
        context.sameInEveryRun(name, gradientOf(factorsOf(norms.values())));
      }
    }
  });
}

// Units whose rows of an id are more than a chunk, and begin and end anywhere in the chunks of the id.
CONFORMANCE_TEST(embeddingGradientOfLongRunsThatCancel) {
  context.forEachReal([&]<class T>() {
    const int64_t d = 5;
    Random random(4);
    std::vector<UnitRows> units;
    for (const int32_t rows : {7, 600, 1, 0, 254, 256, 258, 1030, 3, 511}) {
      units.push_back(cancellingUnit<T>(random, {rows, 1e25, 1e-20}, 1, d));
    }
    const SegmentBatch batch = assemble(units, 1, 1, d);
    const auto dy = context.tensor<T>(batch.dy);
    const auto id = context.tensor(std::vector<int32_t>(static_cast<size_t>(batch.rows()), 1)),
               offsets = context.tensor(batch.offsets);
    const auto norms = context.tensor(std::vector<double>(units.size()));
    context.backend().embeddingGradientNorms({dy, id, offsets, norms, batch.rows(), d, batch.units});
    const auto gradientOf = [&](const std::vector<float>& factors) {
      const auto factor = context.tensor(factors), gradient = context.tensor(std::vector<float>(2 * d));
      context.backend().embeddingGradient({dy, id, offsets, factor, gradient, batch.rows(), d, batch.units, 2});
      return gradient.values();
    };
    expectBoundedSums(norms.values(), gradientOf, label("long runs", typeName<T>));
  });
}

// A table used as embedding and as head, whose uses cancel. The head's rows are a large one, many that its float32 sum
// loses beside it, and the large one's opposite; the embedding's take what was lost away from the exact gradient, which
// would leave a norm of nothing beside what is added.
CONFORMANCE_TEST(tiedGradientsThatCancel) {
  context.forEachReal([&]<class T>() {
    const int64_t d = 16, vocabulary = 9;
    const float large = 0x1p30f, lost = large * 0x1p-24f * 0.96875f;
    for (const int32_t n : {2, 4, 40, 120, 250, 600}) {
      for (const double taken : {1.0, 0.5, -1.0, 1e6}) {
        std::vector<float> logits(static_cast<size_t>(n * vocabulary)), x(static_cast<size_t>(n * d), 1.0f);
        for (int32_t r = 0; r < n; ++r) {
          logits[static_cast<size_t>(r * vocabulary)] = r == 0 ? large : r + 1 == n ? -large : lost;
        }
        const std::vector<float> embedding(static_cast<size_t>(d),
                                           static_cast<float>(-taken * std::max(1, n - 2) * static_cast<double>(lost)));
        const auto dEmbedding = context.tensor<T>(embedding), dLogits = context.tensor<T>(logits),
                   input = context.tensor<T>(x);
        const auto id = context.tensor(std::vector<int32_t>{0}), own = context.tensor(std::vector<int32_t>{0, 1}),
                   head = context.tensor(std::vector<int32_t>{0, n}), tileOf = context.result<int32_t>(1);
        const auto normSquared = context.tensor(std::vector<double>(1));
        const auto tiles = context.result<float>(vocabulary * d);
        const auto gradient = context.tensor(std::vector<float>(static_cast<size_t>(vocabulary * d)));
        auto& backend = context.backend();
        backend.embeddingGradientNorms({dEmbedding, id, own, normSquared, 1, d, 1});
        backend.segmentGradientNorms(
            {dLogits, input, context.none<int32_t>(), head, normSquared, tileOf, tiles, n, vocabulary, d, 1, 1, 1});
        backend.tiedEmbeddingNorms({dEmbedding, id, own, dLogits, input, head, normSquared, d, vocabulary, 1});
        backend.embeddingGradient({dEmbedding, id, own, context.none<float>(), gradient, 1, d, 1, vocabulary});
        backend.weightGradient({dLogits, input, context.none<int32_t>(), head, context.none<float>(), tileOf, tiles,
                                gradient, n, vocabulary, d, 1, 1});
        const double added = norm(gradient.values()), promised = std::sqrt(std::max(0.0, normSquared.values()[0]));
        expect(added <= promised * (1 + 0x1p-11), label("uses that cancel, n ", n, ", taken ", taken, typeName<T>, ": ",
                                                        added, " is added, the norm is ", promised));
      }
    }
  });
}

}  // namespace dp_moe::conformance
