#include <map>

#include "segments.h"

namespace dp_moe::conformance {

namespace {

/// The embedding rows of some units: dy [rows, d], an id per row.
struct EmbeddingBatch {
  int64_t d;
  std::vector<int32_t> offsets;
  std::vector<float> dy;
  std::vector<int32_t> ids;

  int64_t units() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t rows() const { return offsets.back(); }
};

EmbeddingBatch randomEmbeddingBatch(Random& random, const std::vector<int32_t>& lengths, int64_t d,
                                    int32_t vocabulary) {
  EmbeddingBatch batch{d, offsetsOf(lengths), {}, {}};
  batch.dy = random.normals(batch.rows() * d);
  for (int64_t r = 0; r < batch.rows(); ++r) batch.ids.push_back(random.below(vocabulary));
  return batch;
}

/// The gradient of one unit's table: rows with the same id summed, in float64.
std::map<int32_t, std::vector<double>> unitGradient(const EmbeddingBatch& batch, size_t unit) {
  std::map<int32_t, std::vector<double>> gradient;
  for (int64_t r = batch.offsets[unit]; r < batch.offsets[unit + 1]; ++r) {
    auto& row = gradient[batch.ids[static_cast<size_t>(r)]];
    row.resize(static_cast<size_t>(batch.d));
    for (int64_t c = 0; c < batch.d; ++c) {
      row[static_cast<size_t>(c)] += static_cast<double>(batch.dy[static_cast<size_t>(r * batch.d + c)]);
    }
  }
  return gradient;
}

std::vector<double> exactNorms(const EmbeddingBatch& batch) {
  std::vector<double> norms;
  for (size_t u = 0; u + 1 < batch.offsets.size(); ++u) {
    double sum = 0;
    for (const auto& [id, row] : unitGradient(batch, u)) {
      for (const double value : row) sum += value * value;
    }
    norms.push_back(sum);
  }
  return norms;
}

template <class T>
std::vector<double> normsOf(const Context& context, const EmbeddingBatch& batch, double start = 0) {
  const auto dy = context.tensor<T>(batch.dy);
  const auto ids = context.tensor(batch.ids), offsets = context.tensor(batch.offsets);
  const auto normSquared = context.tensor(std::vector<double>(static_cast<size_t>(batch.units()), start));
  context.backend().embeddingGradientNorms({dy, ids, offsets, normSquared, batch.rows(), batch.d, batch.units()});
  return normSquared.values();
}

template <class T>
std::vector<float> gradientOf(const Context& context, const EmbeddingBatch& batch, const std::vector<float>& factors,
                              const std::vector<float>& start) {
  const auto dy = context.tensor<T>(batch.dy), factor = context.tensor(factors), gradient = context.tensor(start);
  const auto ids = context.tensor(batch.ids), offsets = context.tensor(batch.offsets);
  context.backend().embeddingGradient({dy, ids, offsets, factors.empty() ? Input<float>{} : Input<float>(factor),
                                       gradient, batch.rows(), batch.d, batch.units(),
                                       static_cast<int64_t>(start.size()) / batch.d});
  return gradient.values();
}

/// One unit of a table used as embedding and as head.
struct TiedUnit {
  std::vector<float> dEmbedding, dLogits, x;
  std::vector<int32_t> ids;
};

constexpr int64_t kTiedVocabulary = 9;

TiedUnit randomTiedUnit(Random& random, int32_t embeddingRows, int32_t headRows, int64_t d) {
  TiedUnit unit{
      random.normals(embeddingRows * d), random.normals(headRows * kTiedVocabulary), random.normals(headRows * d), {}};
  for (int32_t r = 0; r < embeddingRows; ++r) unit.ids.push_back(random.below(kTiedVocabulary));
  return unit;
}

template <class T>
TiedUnit stored(TiedUnit unit) {
  for (auto* values : {&unit.dEmbedding, &unit.dLogits, &unit.x}) *values = rounded<T>(*values);
  return unit;
}

/// The squared norms of the table's gradient: both uses and the cross term, or the cross term alone.
template <class T>
std::vector<double> tiedNormsOf(const Context& context, const std::vector<TiedUnit>& units, int64_t d, bool crossOnly) {
  EmbeddingBatch embedding{d, {0}, {}, {}};
  SegmentBatch head{d, kTiedVocabulary, static_cast<int64_t>(units.size()), 1, {}, {}, {0}};
  for (const TiedUnit& unit : units) {
    embedding.dy.insert(embedding.dy.end(), unit.dEmbedding.begin(), unit.dEmbedding.end());
    embedding.ids.insert(embedding.ids.end(), unit.ids.begin(), unit.ids.end());
    embedding.offsets.push_back(static_cast<int32_t>(embedding.ids.size()));
    head.dy.insert(head.dy.end(), unit.dLogits.begin(), unit.dLogits.end());
    head.x.insert(head.x.end(), unit.x.begin(), unit.x.end());
    head.offsets.push_back(static_cast<int32_t>(static_cast<int64_t>(head.x.size()) / d));
  }
  const auto dEmbedding = context.tensor<T>(embedding.dy), dLogits = context.tensor<T>(head.dy),
             x = context.tensor<T>(head.x);
  const auto ids = context.tensor(embedding.ids), embeddingOffsets = context.tensor(embedding.offsets),
             headOffsets = context.tensor(head.offsets);
  const auto normSquared = context.tensor(std::vector<double>(units.size()));
  auto& backend = context.backend();
  if (!crossOnly) {
    backend.embeddingGradientNorms({dEmbedding, ids, embeddingOffsets, normSquared, embedding.rows(), d, head.units});
    backend.segmentGradientNorms({dLogits, x, context.none<int32_t>(), headOffsets, normSquared,
                                  context.noResult<int32_t>(), context.noResult<float>(), head.rows(), kTiedVocabulary,
                                  d, head.units, head.units, 0});
  }
  backend.tiedEmbeddingNorms(
      {dEmbedding, ids, embeddingOffsets, dLogits, x, headOffsets, normSquared, d, kTiedVocabulary, head.units});
  return normSquared.values();
}

/// The gradient of the tied table in float64, [vocabulary, d].
std::vector<double> tiedGradient(const TiedUnit& unit, int64_t d, bool embedding, bool head) {
  std::vector<double> gradient(static_cast<size_t>(kTiedVocabulary * d));
  for (size_t r = 0; embedding && r < unit.ids.size(); ++r) {
    for (int64_t c = 0; c < d; ++c) {
      gradient[static_cast<size_t>(unit.ids[r] * d + c)] +=
          static_cast<double>(unit.dEmbedding[r * static_cast<size_t>(d) + static_cast<size_t>(c)]);
    }
  }
  for (int64_t r = 0; head && r < static_cast<int64_t>(unit.x.size()) / d; ++r) {
    for (int64_t v = 0; v < kTiedVocabulary; ++v) {
      const double logit = unit.dLogits[static_cast<size_t>(r * kTiedVocabulary + v)];
      for (int64_t c = 0; c < d; ++c) {
        gradient[static_cast<size_t>(v * d + c)] += logit * static_cast<double>(unit.x[static_cast<size_t>(r * d + c)]);
      }
    }
  }
  return gradient;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

}  // namespace

CONFORMANCE_TEST(embeddingGradientNorms) {
  context.forEachReal([&]<class T>() {
    for (const auto& lengths : unitLengths()) {
      for (const int64_t d : {1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 129}) {
        for (const int32_t vocabulary : {1, 3, 1000, INT32_MAX}) {  // one token only, many repeats, few, none
          Random random(static_cast<uint64_t>(d + vocabulary));
          EmbeddingBatch batch = randomEmbeddingBatch(random, lengths, d, vocabulary);
          batch.dy = rounded<T>(batch.dy);
          const auto name = label(describe(lengths, d), ", vocabulary ", vocabulary, typeName<T>);
          auto exact = once(name, [&] { return exactNorms(batch); });
          const auto norms = normsOf<T>(context, batch);
          expectNorms(norms, exact, "embeddingGradientNorms, " + name);
          for (double& value : exact) value += 2;
          expectNorms(normsOf<T>(context, batch, 2), exact, "added to 2, " + name);
          context.sameInEveryRun("embeddingGradientNorms, " + name, norms);
        }
      }
    }
  });
}

CONFORMANCE_TEST(embeddingGradientNormsOfRepeatedTokens) {
  context.forEachReal([&]<class T>() {
    // One token 512 times: rows that add up, and rows that cancel to a thousandth or to nothing.
    const int64_t d = 65;
    for (const double left : {1.0, 1e-3, 0.0}) {
      Random random(1);
      EmbeddingBatch batch = randomEmbeddingBatch(random, {512, 1}, d, 1);
      for (int64_t r = 1; r < 512; r += 2) {
        for (int64_t c = 0; c < d; ++c) {
          const double before = batch.dy[static_cast<size_t>((r - 1) * d + c)];
          batch.dy[static_cast<size_t>(r * d + c)] = static_cast<float>(before * (left - 1 + left * random.normal()));
        }
      }
      batch.dy = rounded<T>(batch.dy);
      expectNorms(normsOf<T>(context, batch), exactNorms(batch), label("a token 512 times, left ", left));
    }
    // Ids that collide in any table of a power of two.
    Random random(2);
    EmbeddingBatch batch = randomEmbeddingBatch(random, {300}, 16, 1);
    for (size_t r = 0; r < batch.ids.size(); ++r) batch.ids[r] = static_cast<int32_t>(r % 100) << 20;
    batch.dy = rounded<T>(batch.dy);
    expectNorms(normsOf<T>(context, batch), exactNorms(batch), "ids with equal low bits");
  });
}

CONFORMANCE_TEST(embeddingGradientNormsOfAUnitAreItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {1, 17, 64}) {
      Random random(static_cast<uint64_t>(d));
      const EmbeddingBatch own = randomEmbeddingBatch(random, {40}, d, 12);
      std::vector<double> first;
      struct Neighbours {
        int32_t before, after;
        double scale;
      };
      for (const auto& [before, after, scale] : std::vector<Neighbours>{
               {0, 0, 1}, {5, 3, 1}, {10, 6, 1}, {64, 0, 1e30}, {0, 700, 1}, {1, 1, NAN}, {33, 900, INFINITY}}) {
        const EmbeddingBatch a = randomEmbeddingBatch(random, {before}, d, 12),
                             b = randomEmbeddingBatch(random, {after}, d, 12);
        EmbeddingBatch batch{d, offsetsOf({before, 40, after}), join<float>({a.dy, own.dy, b.dy}),
                             join<int32_t>({a.ids, own.ids, b.ids})};
        for (int64_t i = 0; i < static_cast<int64_t>(batch.dy.size()); ++i) {
          const bool mine = i >= before * d && i < (before + 40) * d;
          if (!mine) batch.dy[static_cast<size_t>(i)] *= static_cast<float>(scale);
        }
        const auto norms = normsOf<T>(context, batch);
        if (first.empty()) first = {norms[1]};
        expectSame({norms[1]}, first, label("a unit between ", before, " and ", after, " rows times ", scale));
        for (const size_t u : {0, 2}) {
          const bool finite = std::isfinite(scale) || (u == 0 ? before : after) == 0;
          expect(std::isfinite(norms[u]) == finite, label("the norm of rows times ", scale, " is ", norms[u]));
        }
      }
    }
  });
}

CONFORMANCE_TEST(embeddingGradient) {
  context.forEachReal([&]<class T>() {
    for (const auto& lengths : unitLengths()) {
      for (const int64_t d : {1, 3, 16, 17, 63, 64, 65, 129, 200}) {
        for (const int32_t vocabulary : {1, 40}) {
          Random random(static_cast<uint64_t>(d));
          EmbeddingBatch batch = randomEmbeddingBatch(random, lengths, d, vocabulary);
          batch.dy = rounded<T>(batch.dy);
          const auto start = random.normals(vocabulary * d);
          std::vector<float> factors;
          for (size_t u = 0; u < lengths.size(); ++u) factors.push_back(u % 3 == 1 ? 0 : 1 / static_cast<float>(u + 1));
          for (const bool weighted : {false, true}) {
            const auto name =
                label(describe(lengths, d), ", vocabulary ", vocabulary, weighted ? ", with factors" : "", typeName<T>);
            std::vector<Sum> expected(start.size());
            for (size_t i = 0; i < start.size(); ++i) expected[i].add(static_cast<double>(start[i]));
            for (size_t u = 0; u < lengths.size(); ++u) {
              for (int64_t r = batch.offsets[u]; r < batch.offsets[u + 1]; ++r) {
                for (int64_t c = 0; c < d; ++c) {
                  float& value = batch.dy[static_cast<size_t>(r * d + c)];
                  if (weighted && factors[u] == 0) value = NAN;  // not to be read
                  if (weighted && factors[u] == 0) continue;
                  expected[static_cast<size_t>(batch.ids[static_cast<size_t>(r)] * d + c)].add(
                      static_cast<double>(value) * (weighted ? static_cast<double>(factors[u]) : 1));
                }
              }
            }
            const auto gradient = gradientOf<T>(context, batch, weighted ? factors : std::vector<float>(), start);
            expectSums(gradient, expected, batch.rows(), "embeddingGradient, " + name);
            context.sameInEveryRun("embeddingGradient, " + name, gradient);
          }
        }
      }
    }
  });
}

// More rows than a block sorts, ids of more than two bytes, a token that fills a third of the batch.
CONFORMANCE_TEST(embeddingGradientOfManyRows) {
  context.forEachReal([&]<class T>() {
    const int64_t d = 5;
    const int32_t vocabulary = 70000;
    Random random(1);
    EmbeddingBatch batch = randomEmbeddingBatch(random, {1, 2100, 0, 900, 1700, 3}, d, vocabulary);
    batch.dy = rounded<T>(batch.dy);
    for (size_t r = 0; r < batch.ids.size(); ++r) {
      if (random.below(3) == 0) batch.ids[r] = 66000;
      if (random.below(3) == 0) batch.ids[r] = random.below(8) * 256;  // one low byte
    }
    const std::vector<float> factors = {1, 0.5f, 1, 0, 0.25f, 2};
    std::vector<Sum> expected(static_cast<size_t>(vocabulary * d));
    for (size_t u = 0; u < factors.size(); ++u) {
      for (int64_t r = batch.offsets[u]; r < batch.offsets[u + 1]; ++r) {
        for (int64_t c = 0; c < d; ++c) {
          float& value = batch.dy[static_cast<size_t>(r * d + c)];
          if (factors[u] == 0) value = NAN;
          if (factors[u] == 0) continue;
          expected[static_cast<size_t>(batch.ids[static_cast<size_t>(r)] * d + c)].add(static_cast<double>(value) *
                                                                                       static_cast<double>(factors[u]));
        }
      }
    }
    const auto gradient = gradientOf<T>(context, batch, factors, std::vector<float>(expected.size()));
    expectSums(gradient, expected, batch.rows(), "many rows");
    context.sameInEveryRun(label("many rows", typeName<T>), gradient);
    for (float& value : batch.dy) value = std::isnan(value) ? 1 : value;
    expectNorms(normsOf<T>(context, batch), exactNorms(batch), "norms of many rows");
  });
}

CONFORMANCE_TEST(tiedEmbeddingNorms) {
  context.forEachReal([&]<class T>() {
    struct Rows {
      int32_t embedding, head;
    };
    const std::vector<Rows> rows = {{0, 0}, {0, 3}, {4, 0}, {1, 1}, {7, 8}, {17, 9}, {130, 65}};
    for (const int64_t d : {1, 7, 16, 17, 33, 64, 129, 300}) {
      Random random(static_cast<uint64_t>(d));
      std::vector<TiedUnit> units;
      for (const auto [embedding, head] : rows) units.push_back(stored<T>(randomTiedUnit(random, embedding, head, d)));
      const auto norms = tiedNormsOf<T>(context, units, d, false), cross = tiedNormsOf<T>(context, units, d, true);
      std::vector<double> exact;
      for (size_t u = 0; u < units.size(); ++u) {
        const auto embedding = tiedGradient(units[u], d, true, false), head = tiedGradient(units[u], d, false, true),
                   both = tiedGradient(units[u], d, true, true);
        const double term = 2 * dot(embedding, head), size = std::sqrt(dot(embedding, embedding) * dot(head, head));
        expect(cross[u] >= term - 1e-12 * size && cross[u] <= term + 2e-3 * size,
               label("the cross term, unit ", u, ", d ", d, ": expected ", term, ", got ", cross[u]));
        exact.push_back(dot(both, both));
      }
      expectNorms(norms, exact, label("a tied table, d ", d));
      context.sameInEveryRun(label("tied ", d, typeName<T>), norms);
    }
  });
}

CONFORMANCE_TEST(tiedEmbeddingNormsOfUsesThatCancel) {
  context.forEachReal([&]<class T>() {
    // The head's gradient takes all but a hundredth of the embedding's away.
    for (const int64_t d : {16, 65}) {
      Random random(3);
      TiedUnit unit{{}, std::vector<float>(static_cast<size_t>(6 * kTiedVocabulary)), random.normals(6 * d), {}};
      for (int32_t r = 0; r < 6; ++r) {
        unit.ids.push_back(r);
        unit.dLogits[static_cast<size_t>(r * kTiedVocabulary + r)] = 1;
        for (int64_t c = 0; c < d; ++c) {
          unit.dEmbedding.push_back(static_cast<float>(-static_cast<double>(unit.x[static_cast<size_t>(r * d + c)]) *
                                                       (1 + 0.05 * random.normal())));
        }
      }
      unit = stored<T>(std::move(unit));
      // Never short; over by what the rounding of both uses may be, which is not relative to what they leave. A product
      // of tensor cores counts as more roundings than one of float32.
      const auto both = tiedGradient(unit, d, true, true), head = tiedGradient(unit, d, false, true);
      const double rounding = storageError<T> > 0 ? 4e-5 : 2e-5;
      const double exact = dot(both, both), norm = tiedNormsOf<T>(context, {unit}, d, false)[0];
      expect(exact < dot(head, head) / 100 && norm >= exact * (1 - 1e-5) && norm <= exact + rounding * dot(head, head),
             label("uses that cancel: expected ", exact, ", got ", norm));
    }
  });
}

CONFORMANCE_TEST(tiedEmbeddingNormsOfAUnitAreItsOwn) {
  context.forEachReal([&]<class T>() {
    const int64_t d = 33;
    Random random(7);
    const TiedUnit own = stored<T>(randomTiedUnit(random, 70, 11, d)), empty = randomTiedUnit(random, 0, 0, d),
                   small = stored<T>(randomTiedUnit(random, 2, 9, d)),
                   large = stored<T>(randomTiedUnit(random, 150, 40, d));
    TiedUnit bad = small;
    std::fill(bad.dEmbedding.begin(), bad.dEmbedding.end(), NAN);
    std::fill(bad.dLogits.begin(), bad.dLogits.end(), INFINITY);
    const std::vector<std::vector<TiedUnit>> batches = {{empty, own, empty}, {small, own, large},
                                                        {large, own, small}, {bad, own, bad},
                                                        {large, own},        {empty, own, bad, small}};
    std::vector<double> first;
    for (const auto& batch : batches) {
      const std::vector<double> mine = {tiedNormsOf<T>(context, batch, d, true)[1]};
      if (first.empty()) first = mine;
      expectSame(mine, first, label("a tied unit in batch ", &batch - batches.data()));
    }
    // A value that is not finite in any operand that the unit's cross term reads.
    for (const int place : {0, 1, 2}) {
      TiedUnit hit = own;
      if (place == 0) hit.dEmbedding.back() = NAN;
      if (place == 1) hit.dLogits[static_cast<size_t>(10 * kTiedVocabulary + hit.ids[0])] = INFINITY;
      if (place == 2) hit.x.back() = NAN;
      const auto norms = tiedNormsOf<T>(context, {small, hit, large}, d, true);
      expect(!std::isfinite(norms[1]) && std::isfinite(norms[0]) && std::isfinite(norms[2]),
             label("a value that is not finite, place ", place));
    }
  });
}

CONFORMANCE_TEST(embeddingGradientsRefuse) {
  const auto dy = context.result<float>(4 * 2), factor = context.result<float>(2), table = context.result<float>(3 * 2),
             logits = context.result<float>(4 * 3);
  const auto ids = context.tensor(std::vector<int32_t>{0, 2, 2, 1}),
             low = context.tensor(std::vector<int32_t>{0, -1, 2, 1}),
             high = context.tensor(std::vector<int32_t>{0, 3, 2, 1}),
             offsets = context.tensor(std::vector<int32_t>{0, 1, 4}),
             falling = context.tensor(std::vector<int32_t>{0, 4, 1}),
             beyond = context.tensor(std::vector<int32_t>{0, 1, 5});
  const auto normSquared = context.result<double>(2);
  auto& backend = context.backend();
  const EmbeddingGradientNormsParams norms{dy, ids, offsets, normSquared, 4, 2, 2};
  backend.embeddingGradientNorms(norms);
  const auto normsRefuse = [&](const char* code, const char* what, auto change) {
    auto params = norms;
    change(params);
    expectError(code, [&] { backend.embeddingGradientNorms(params); }, what);
  };
  normsRefuse("SHAPE_MISMATCH", "dy", [&](auto& p) { p.dy.size -= 1; });
  normsRefuse("SHAPE_MISMATCH", "ids", [&](auto& p) { p.ids.size -= 1; });
  normsRefuse("SHAPE_MISMATCH", "segmentOffsets", [&](auto& p) { p.segmentOffsets.size -= 1; });
  normsRefuse("SHAPE_MISMATCH", "normSquared", [&](auto& p) { p.normSquared.size -= 1; });
  normsRefuse("INVALID_ARGUMENT", "falling offsets", [&](auto& p) { p.segmentOffsets = falling; });
  normsRefuse("INVALID_ARGUMENT", "offsets past the rows", [&](auto& p) { p.segmentOffsets = beyond; });
  normsRefuse("INVALID_ARGUMENT", "d 0", [&](auto& p) { p.d = 0; });

  const EmbeddingGradientParams gradient{dy, ids, offsets, factor, table, 4, 2, 2, 3};
  backend.embeddingGradient(gradient);
  const auto gradientRefuses = [&](const char* code, const char* what, auto change) {
    auto params = gradient;
    change(params);
    expectError(code, [&] { backend.embeddingGradient(params); }, what);
  };
  gradientRefuses("SHAPE_MISMATCH", "dy", [&](auto& p) { p.dy.size -= 1; });
  gradientRefuses("SHAPE_MISMATCH", "ids", [&](auto& p) { p.ids.size -= 1; });
  gradientRefuses("SHAPE_MISMATCH", "factor", [&](auto& p) { p.factor.size -= 1; });
  gradientRefuses("SHAPE_MISMATCH", "gradient", [&](auto& p) { p.gradient.size -= 2; });
  for (const auto& wrong : {low, high}) {
    gradientRefuses("INVALID_ARGUMENT", "an id", [&](auto& p) { p.ids = wrong; });
  }
  gradientRefuses("INVALID_ARGUMENT", "falling offsets", [&](auto& p) { p.segmentOffsets = falling; });
  gradientRefuses("INVALID_ARGUMENT", "d 0", [&](auto& p) { p.d = 0; });

  const TiedEmbeddingNormsParams tied{dy, ids, offsets, logits, dy, offsets, normSquared, 2, 3, 2};
  backend.tiedEmbeddingNorms(tied);
  const auto tiedRefuses = [&](const char* code, const char* what, auto change) {
    auto params = tied;
    change(params);
    expectError(code, [&] { backend.tiedEmbeddingNorms(params); }, what);
  };
  tiedRefuses("SHAPE_MISMATCH", "ragged dEmbedding", [&](auto& p) { p.dEmbedding.size -= 1; });
  tiedRefuses("SHAPE_MISMATCH", "ids", [&](auto& p) { p.ids.size -= 1; });
  tiedRefuses("SHAPE_MISMATCH", "dLogits", [&](auto& p) { p.dLogits.size -= 3; });
  tiedRefuses("SHAPE_MISMATCH", "ragged x", [&](auto& p) { p.x.size -= 1; });
  tiedRefuses("SHAPE_MISMATCH", "embeddingOffsets", [&](auto& p) { p.embeddingOffsets.size -= 1; });
  tiedRefuses("SHAPE_MISMATCH", "headOffsets", [&](auto& p) { p.headOffsets.size -= 1; });
  tiedRefuses("SHAPE_MISMATCH", "normSquared", [&](auto& p) { p.normSquared.size -= 1; });
  for (const auto& wrong : {low, high}) {
    tiedRefuses("INVALID_ARGUMENT", "an id", [&](auto& p) { p.ids = wrong; });
  }
  tiedRefuses("INVALID_ARGUMENT", "falling embeddingOffsets", [&](auto& p) { p.embeddingOffsets = falling; });
  tiedRefuses("INVALID_ARGUMENT", "headOffsets past the rows", [&](auto& p) { p.headOffsets = beyond; });
  tiedRefuses("INVALID_ARGUMENT", "vocabulary 0", [&](auto& p) { p.vocabulary = 0; });
}

}  // namespace dp_moe::conformance
