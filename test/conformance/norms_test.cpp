#include "segments.h"

namespace dp_moe::conformance {

namespace {

/// What segmentGradientNorms leaves behind.
struct Norms {
  std::vector<double> normSquared;
  std::vector<int32_t> tileOf;
  std::vector<float> tiles;
};

bool wantsTile(int64_t n, int64_t d, int64_t p) { return n * n * (d + p) >= 20 * d * p; }

int64_t countTiles(const SegmentBatch& batch) {
  int64_t count = 0;
  for (int64_t s = 0; s < batch.segments(); ++s) count += wantsTile(batch.rowsOf(s), batch.d, batch.p);
  return count;
}

template <class T>
Norms normsOf(const Context& context, const SegmentBatch& batch, double start = 0) {
  const int64_t most = countTiles(batch);
  const auto dy = context.tensor<T>(batch.dy), x = context.tensor<T>(batch.x);
  const auto offsets = context.tensor(batch.offsets);
  const auto normSquared = context.tensor(std::vector<double>(static_cast<size_t>(batch.units), start));
  const auto tileOf = context.result<int32_t>(batch.segments());
  const auto tiles = context.result<float>(most * batch.p * batch.d);
  context.backend().segmentGradientNorms({dy, x, context.none<int32_t>(), offsets, normSquared, tileOf, tiles,
                                          batch.rows(), batch.p, batch.d, batch.segments(), batch.units, most});
  return {normSquared.values(), tileOf.values(), tiles.values()};
}

/// The squared norm of each unit in float64.
std::vector<double> exactNorms(const SegmentBatch& batch) {
  std::vector<double> exact(static_cast<size_t>(batch.units));
  for (int64_t s = 0; s < batch.segments(); ++s) {
    exact[static_cast<size_t>(s % batch.units)] += squaredNorm(segmentGradient(batch, s));
  }
  return exact;
}

std::vector<double> exactBiasNorms(const SegmentBatch& batch) {
  std::vector<double> exact(static_cast<size_t>(batch.units));
  for (int64_t s = 0; s < batch.segments(); ++s) {
    for (int64_t c = 0; c < batch.p; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < batch.rowsOf(s); ++r) sum += static_cast<double>(batch.dyOf(s)[r * batch.p + c]);
      exact[static_cast<size_t>(s % batch.units)] += sum * sum;
    }
  }
  return exact;
}

template <class T>
std::vector<double> biasNormsOf(const Context& context, const SegmentBatch& batch, double start = 0) {
  const auto dy = context.tensor<T>(batch.dy);
  const auto offsets = context.tensor(batch.offsets);
  const auto normSquared = context.tensor(std::vector<double>(static_cast<size_t>(batch.units), start));
  context.backend().segmentBiasNorms({dy, offsets, normSquared, batch.rows(), batch.p, batch.segments(), batch.units});
  return normSquared.values();
}

void expectTiles(const Norms& norms, const SegmentBatch& batch, const std::string& what) {
  int32_t slot = 0;
  for (int64_t s = 0; s < batch.segments(); ++s) {
    const bool tile = wantsTile(batch.rowsOf(s), batch.d, batch.p);
    const int32_t at = norms.tileOf[static_cast<size_t>(s)];
    expect(at == (tile ? slot : -1), label(what, ": tileOf[", s, "] is ", at));
    if (!tile) continue;
    const auto* first = norms.tiles.data() + slot++ * batch.p * batch.d;
    expectSums({first, first + batch.p * batch.d}, once(label(what, s), [&] { return segmentGradient(batch, s); }),
               batch.rowsOf(s), label(what, ", tile of segment ", s));
  }
}

struct Shape {
  int64_t d;
  int64_t p;
};

/// Every ragged size once as d and once as p, next to one of its own kind and of another.
std::vector<Shape> shapes() {
  const auto sizes = raggedSizes();
  std::vector<Shape> all = {{300, 5}, {5, 300}, {1100, 3}};
  for (size_t i = 0; i < sizes.size(); ++i) {
    all.push_back({sizes[i], sizes[i]});
    all.push_back({sizes[i], sizes[(i + 3) % sizes.size()]});
  }
  return all;
}

}  // namespace

CONFORMANCE_TEST(segmentGradientNorms) {
  context.forEachReal([&]<class T>() {
    for (const auto [d, p] : shapes()) {
      // Two experts with both forms in every width, empty segments, and the row count where the form changes.
      int32_t limit = 1;
      while (!wantsTile(limit, d, p)) ++limit;
      const std::vector<int32_t> lengths = {0, 1, 2, 3, 0, limit - 1, 5, 8, 4, 1, 0, 0, 7, limit, limit + 4, 9};
      Random random(static_cast<uint64_t>(d * 1000 + p));
      const SegmentBatch batch = stored<T>(randomBatch(random, lengths, 2, d, p));
      const auto name = label("d ", d, ", p ", p, typeName<T>);
      const Norms norms = normsOf<T>(context, batch);
      expectNorms(norms.normSquared, once(name, [&] { return exactNorms(batch); }), name);
      expectTiles(norms, batch, name);
      context.sameInEveryRun("normSquared, " + name, norms.normSquared);
      context.sameInEveryRun("tiles, " + name, norms.tiles);

      // Gathered rows of x, no tiles kept, rows past the last segment: the same norms.
      const GatheredRows gathered = scattered(random, batch.x, d);
      auto xRows = gathered.rows;
      xRows.resize(xRows.size() + 3, -5);
      auto longDy = batch.dy;
      longDy.resize(longDy.size() + static_cast<size_t>(3 * p), NAN);
      const auto dy = context.tensor<T>(longDy), x = context.tensor<T>(gathered.x);
      const auto rows = context.tensor(xRows), offsets = context.tensor(batch.offsets);
      const auto normSquared = context.tensor(std::vector<double>(static_cast<size_t>(batch.units)));
      context.backend().segmentGradientNorms({dy, x, rows, offsets, normSquared, context.noResult<int32_t>(),
                                              context.noResult<float>(), batch.rows() + 3, p, d, batch.segments(),
                                              batch.units, 0});
      expectSame(normSquared.values(), norms.normSquared, name + ", rows gathered, no tiles");
    }
  });
}

CONFORMANCE_TEST(segmentGradientNormsOfNothing) {
  context.forEachReal([&]<class T>() {
    Random random(1);
    for (const auto& lengths : {std::vector<int32_t>{0, 0, 0, 0}, std::vector<int32_t>{0, 3, 0, 2}}) {
      const SegmentBatch batch = stored<T>(randomBatch(random, lengths, 2, 17, 7));
      auto exact = exactNorms(batch);
      for (double& value : exact) value += 2.5;
      const auto norms = normsOf<T>(context, batch, 2.5).normSquared;
      expectNorms(norms, exact, "norms add to what is there");
      expect(norms[0] == 2.5, "an empty unit adds nothing");
    }
    const Norms none = normsOf<T>(context, {17, 7, 2, 0, {}, {}, {0}}, 1);  // no expert
    expectSame(none.normSquared, {1.0, 1.0}, "no segments");
  });
}

// The Gram form adds the proven bound of its error: it is never short, however the roundings fall. Parallel rows of one
// sign are where they fall alike.
CONFORMANCE_TEST(gramNormsAreUpperBounds) {
  context.forEachReal([&]<class T>() {
    for (const auto [d, p] : {Shape{304, 200}, Shape{1000, 61}, Shape{2500, 24}}) {
      for (const int32_t n : {1, 2, 4, 8, 11, 16, 19}) {
        if (wantsTile(n, d, p)) continue;
        for (const bool parallel : {false, true}) {
          Random random(static_cast<uint64_t>(d + n));
          SegmentBatch batch = randomBatch(random, {n, n, n}, 1, d, p);
          const auto repeatRows = [&](std::vector<float>& values, int64_t columns) {
            for (size_t i = 0; i < values.size(); ++i) {
              const size_t first = i % static_cast<size_t>(columns);
              values[i] = std::abs(values[first]) + 1e-3f * static_cast<float>(i / static_cast<size_t>(columns));
            }
          };
          if (parallel) repeatRows(batch.x, d), repeatRows(batch.dy, p);
          batch = stored<T>(std::move(batch));
          const auto name =
              label(typeName<T>, "upper bound, d ", d, ", p ", p, ", n ", n, parallel ? ", parallel" : "");
          const auto& exact = once(name, [&] { return exactNorms(batch); });
          const auto norms = normsOf<T>(context, batch).normSquared;
          expectNorms(norms, exact, name);
          for (size_t u = 0; u < 3; ++u) {
            expect(norms[u] >= exact[u] * (1 - 1e-13), label(name, ": short by ", 1 - norms[u] / exact[u]));
          }
        }
      }
    }
  });
}

// What a layer sees after a common offset: the Gram form would lose the norm in the rounding of what cancels.
CONFORMANCE_TEST(segmentGradientNormsWhereSumsCancel) {
  context.forEachReal([&]<class T>() {
    for (const auto [d, p] : {Shape{64, 64}, Shape{17, 129}, Shape{600, 40}, Shape{129, 1}}) {
      for (const int32_t n : {1, 2, 3, 12, 25, 512}) {
        for (const bool centred : {false, true}) {
          Random random(static_cast<uint64_t>(d + n));
          SegmentBatch batch = randomBatch(random, {n, 0, n}, 1, d, p);
          for (float& value : batch.x) value += 300;
          if (centred) {  // the rows of dy sum to nothing, so that the common part of x has no gradient
            for (const int64_t s : {0, 2}) {
              for (int64_t c = 0; c < p; ++c) {
                float* column = batch.dy.data() + batch.offsets[static_cast<size_t>(s)] * p + c;
                double sum = 0;
                for (int64_t r = 0; r + 1 < n; ++r) sum += static_cast<double>(column[r * p]);
                if (n > 1) column[(n - 1) * p] = static_cast<float>(-sum);
              }
            }
          }
          batch = stored<T>(std::move(batch));
          const auto name = label(typeName<T>, "rows of mean/std 300", centred ? ", dy of sum 0" : "", ", d ", d,
                                  ", p ", p, ", n ", n);
          const Norms norms = normsOf<T>(context, batch);
          expectNorms(norms.normSquared, once(name, [&] { return exactNorms(batch); }), name);
          context.sameInEveryRun(name, norms.normSquared);
        }
      }
    }
  });
}

// The worst case for the guard: pairs of opposite rows, whose gradients cancel to a thousandth or to nothing.
CONFORMANCE_TEST(segmentGradientNormsOfOppositeRows) {
  context.forEachReal([&]<class T>() {
    for (const double difference : {1e-1, 1e-2, 1e-3, 0.0}) {
      for (const int32_t n : {2, 6, 16}) {
        const int64_t d = 64, p = 65;
        Random random(static_cast<uint64_t>(n));
        SegmentBatch batch = randomBatch(random, {n}, 1, d, p);
        for (int32_t r = 1; r < n; r += 2) {
          for (int64_t c = 0; c < d; ++c) {
            const double before = batch.x[static_cast<size_t>((r - 1) * d + c)];
            batch.x[static_cast<size_t>(r * d + c)] = static_cast<float>(before * (1 + difference * random.normal()));
          }
          for (int64_t c = 0; c < p; ++c) {
            batch.dy[static_cast<size_t>(r * p + c)] = -batch.dy[static_cast<size_t>((r - 1) * p + c)];
          }
        }
        batch = stored<T>(std::move(batch));
        const auto& exact = once(label(difference, " ", n, typeName<T>), [&] { return exactNorms(batch); });
        const auto norms = normsOf<T>(context, batch).normSquared;
        if (difference > 0) {
          expectNorms(norms, exact, label("rows opposite but for ", difference, ", n ", n));
        } else {
          expect(exact[0] == 0 && norms[0] >= 0 && norms[0] < 1e-9, label("opposite rows: the norm is ", norms[0]));
        }
      }
    }
  });
}

CONFORMANCE_TEST(segmentGradientNormsOfSmallAndLargeValues) {
  context.forEachReal([&]<class T>() {
    struct Scales {
      double x, dy;
    };
    for (const auto [xScale, dyScale] : {Scales{1e-18, 1e-18}, Scales{1e-25, 1e10}, Scales{1e8, 1e-30},
                                         Scales{1e-12, 1e-12}, Scales{1e9, 1e9}, Scales{1e18, 1e-18}}) {
      for (const int32_t n : {1, 4, 40}) {
        Random random(3);
        SegmentBatch batch = randomBatch(random, {n, n}, 1, 33, 17);
        for (float& value : batch.x) value = static_cast<float>(static_cast<double>(value) * xScale);
        for (float& value : batch.dy) value = static_cast<float>(static_cast<double>(value) * dyScale);
        batch = stored<T>(std::move(batch));
        expectNorms(normsOf<T>(context, batch).normSquared, exactNorms(batch),
                    label("x of ", xScale, ", dy of ", dyScale, ", n ", n));
      }
    }
    for (const float x : {3e38f, 1e20f}) {  // a gradient beyond float32 is no finite norm
      for (const int32_t n : {1, 40}) {
        Random random(4);
        SegmentBatch batch = randomBatch(random, {n, n}, 1, 33, 17);
        std::fill_n(batch.x.begin(), n * 33, x);
        std::fill_n(batch.dy.begin(), n * 17, x);
        const auto norms = normsOf<T>(context, batch).normSquared;
        expect(!std::isfinite(norms[0]) && std::isfinite(norms[1]), label("x and dy of ", x, ", n ", n));
      }
    }
  });
}

CONFORMANCE_TEST(gradientNormsOfANonFiniteUnit) {
  context.forEachReal([&]<class T>() {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      for (const int32_t n : {1, 3, 60}) {
        for (const bool inDy : {false, true}) {
          const int64_t d = 33, p = 17;
          Random random(static_cast<uint64_t>(n));
          const SegmentBatch clean = stored<T>(randomBatch(random, {4, n, 0, 2, 3, n, 50, 1}, 2, d, p));
          const auto cleanNorms = normsOf<T>(context, clean), cleanBias = Norms{biasNormsOf<T>(context, clean), {}, {}};
          for (const int64_t row : {int64_t{0}, int64_t{n} / 2, int64_t{n} - 1}) {
            for (const int64_t fromEnd : {1, 9, 17}) {
              SegmentBatch batch = clean;  // segment 1 and 5 are unit 1's; the other operand's row is zero there
              const int64_t at = batch.offsets[5] + row;
              std::fill_n((inDy ? batch.x.begin() + at * d : batch.dy.begin() + at * p), inDy ? d : p, 0.0f);
              (inDy ? batch.dy[static_cast<size_t>((at + 1) * p - fromEnd)]
                    : batch.x[static_cast<size_t>((at + 1) * d - fromEnd)]) = bad;
              const auto norms = normsOf<T>(context, batch).normSquared, bias = biasNormsOf<T>(context, batch);
              const auto name = label(bad, inDy ? " in dy" : " in x", ", n ", n, ", row ", row, ", column -", fromEnd);
              expect(!std::isfinite(norms[1]), name + ": the norm is finite");
              expect(!inDy || !std::isfinite(bias[1]), name + ": the bias norm is finite");
              for (const size_t u : {0, 2, 3}) {
                expect(norms[u] == cleanNorms.normSquared[u], name + ": another unit's norm changed");
                expect(bias[u] == cleanBias.normSquared[u], name + ": another unit's bias norm changed");
              }
            }
          }
        }
      }
    }
  });
}

CONFORMANCE_TEST(gradientNormsOfAUnitAreItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const auto [d, p] : {Shape{17, 65}, Shape{64, 63}, Shape{129, 1}}) {
      for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{3, 0, 40}, {1, 1, 1}, {11, 300, 2}}) {
        Random random(static_cast<uint64_t>(d));
        const UnitRows own = randomUnit(random, lengths, d, p);
        std::vector<double> first;
        std::vector<float> firstTiles;
        for (const Setting& setting : settingsOf(own, random, 3, d, p)) {
          const SegmentBatch batch = assemble(setting.units, 3, d, p);
          const Norms norms = normsOf<T>(context, batch);
          std::vector<float> tiles;
          for (int64_t e = 0; e < 3; ++e) {
            const int32_t slot = norms.tileOf[static_cast<size_t>(e) * setting.units.size() + setting.own];
            if (slot < 0) continue;
            const auto tile = norms.tiles.begin() + slot * p * d;
            tiles.insert(tiles.end(), tile, tile + p * d);
          }
          const std::vector<double> mine = {norms.normSquared[setting.own],
                                            biasNormsOf<T>(context, batch)[setting.own]};
          if (first.empty()) first = mine, firstTiles = tiles;
          const auto name = label(setting.name, ", d ", d, ", p ", p);
          expectSame(mine, first, "norms, " + name);
          expectSame(tiles, firstTiles, "tiles, " + name);
        }
        context.sameInEveryRun(label("own norms ", typeName<T>, d, " ", p, " ", lengths[0]), first);
      }
    }
  });
}

CONFORMANCE_TEST(segmentBiasNorms) {
  context.forEachReal([&]<class T>() {
    for (const int64_t p : {1, 7, 16, 17, 31, 33, 63, 64, 65, 129, 300}) {
      for (const float mean : {0.0f, 300.0f}) {
        Random random(static_cast<uint64_t>(p));
        SegmentBatch batch = randomBatch(random, {0, 1, 2, 17, 600, 0, 0, 3}, 2, 1, p);
        for (float& value : batch.dy) value += mean;
        batch = stored<T>(std::move(batch));
        const auto name = label(typeName<T>, "bias, p ", p, ", mean ", mean);
        auto exact = exactBiasNorms(batch);
        expectNorms(biasNormsOf<T>(context, batch), exact, name);
        for (double& value : exact) value += 3;
        expectNorms(biasNormsOf<T>(context, batch, 3), exact, name + ", added to 3");
        context.sameInEveryRun(name, biasNormsOf<T>(context, batch));
      }
    }
    // Many rows that cancel: the digits are kept.
    Random random(9);
    SegmentBatch batch = randomBatch(random, {512}, 1, 1, 65);
    for (int64_t r = 0; r < 512; ++r) {
      for (int64_t c = 0; c < 65; ++c) batch.dy[static_cast<size_t>(r * 65 + c)] += r % 2 == 0 ? 1e4f : -1e4f;
    }
    batch = stored<T>(std::move(batch));
    expectNorms(biasNormsOf<T>(context, batch), exactBiasNorms(batch), "bias of rows that cancel");
  });
}

CONFORMANCE_TEST(gradientNormsRefuse) {
  const SegmentBatch batch{2, 3, 2, 2, std::vector<float>(30, 1), std::vector<float>(45, 1), {0, 6, 7, 15, 15}};
  const auto dy = context.tensor(batch.dy), x = context.tensor(batch.x), tiles = context.result<float>(12);
  const auto offsets = context.tensor(batch.offsets), rows = context.tensor(std::vector<int32_t>(15, 14)),
             wrongRows = context.tensor(std::vector<int32_t>(15, 15)),
             falling = context.tensor(std::vector<int32_t>{0, 6, 5, 15, 15}),
             beyond = context.tensor(std::vector<int32_t>{0, 6, 7, 16, 16});
  const auto normSquared = context.result<double>(2);
  const auto tileOf = context.result<int32_t>(4);
  const SegmentGradientNormsParams good{dy, x, rows, offsets, normSquared, tileOf, tiles, 15, 3, 2, 4, 2, 2};
  context.backend().segmentGradientNorms(good);
  const auto refuses = [&](const char* code, const char* what, auto change) {
    auto params = good;
    change(params);
    expectError(code, [&] { context.backend().segmentGradientNorms(params); }, what);
  };
  refuses("SHAPE_MISMATCH", "dy", [&](auto& p) { p.dy.size -= 1; });
  refuses("SHAPE_MISMATCH", "x of ragged rows", [&](auto& p) { p.x.size -= 1; });
  refuses("SHAPE_MISMATCH", "x without xRows", [&](auto& p) { p.xRows = {}, p.x.size -= 2; });
  refuses("SHAPE_MISMATCH", "xRows", [&](auto& p) { p.xRows.size -= 1; });
  refuses("SHAPE_MISMATCH", "segmentOffsets", [&](auto& p) { p.segmentOffsets.size -= 1; });
  refuses("SHAPE_MISMATCH", "normSquared", [&](auto& p) { p.normSquared.size -= 1; });
  refuses("SHAPE_MISMATCH", "normSquared left out", [&](auto& p) { p.normSquared = {}; });
  refuses("SHAPE_MISMATCH", "tileOf", [&](auto& p) { p.tileOf.size -= 1; });
  refuses("INVALID_ARGUMENT", "a row out of range", [&](auto& p) { p.xRows = wrongRows; });
  refuses("INVALID_ARGUMENT", "falling offsets", [&](auto& p) { p.segmentOffsets = falling; });
  refuses("INVALID_ARGUMENT", "offsets past the rows", [&](auto& p) { p.segmentOffsets = beyond; });
  refuses("INVALID_ARGUMENT", "short tiles", [&](auto& p) { p.tiles.size -= 1; });
  refuses("INVALID_ARGUMENT", "tiles left out", [&](auto& p) { p.tiles = {}; });
  refuses("INVALID_ARGUMENT", "more segments than maxTiles", [&](auto& p) { p.maxTiles = 1; });
  refuses("INVALID_ARGUMENT", "d 0", [&](auto& p) { p.d = 0; });
  refuses("INVALID_ARGUMENT", "no units", [&](auto& p) { p.units = 0; });
  refuses("INVALID_ARGUMENT", "segments no multiple of units", [&](auto& p) { p.units = 3; });
  const SegmentBiasNormsParams bias{dy, offsets, normSquared, 15, 3, 4, 2};
  const auto biasRefuses = [&](const char* code, const char* what, auto change) {
    auto params = bias;
    change(params);
    expectError(code, [&] { context.backend().segmentBiasNorms(params); }, what);
  };
  biasRefuses("SHAPE_MISMATCH", "dy", [&](auto& p) { p.dy.size += 1; });
  biasRefuses("SHAPE_MISMATCH", "segmentOffsets", [&](auto& p) { p.segments = 2; });
  biasRefuses("SHAPE_MISMATCH", "normSquared", [&](auto& p) { p.normSquared.size += 1; });
  biasRefuses("INVALID_ARGUMENT", "falling offsets", [&](auto& p) { p.segmentOffsets = falling; });
  biasRefuses("INVALID_ARGUMENT", "segments no multiple of units", [&](auto& p) { p.units = 3; });
  biasRefuses("INVALID_ARGUMENT", "p 0", [&](auto& p) { p.p = 0; });
}

}  // namespace dp_moe::conformance
