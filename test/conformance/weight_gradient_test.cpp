#include "segments.h"

namespace dp_moe::conformance {

namespace {

/// Tiles of some segments, as segmentGradientNorms leaves them.
struct Tiles {
  std::vector<int32_t> tileOf;
  std::vector<float> tiles;
};

struct Sources {
  std::vector<float> factor;  // empty: left out
  Tiles kept;                 // tileOf empty: left out
  bool gathered = false;
};

template <class T = float>
std::vector<float> weightGradientOf(const Context& context, const SegmentBatch& batch, const Sources& sources,
                                    const std::vector<float>& start) {
  Random random(2);
  const GatheredRows gathered = scattered(random, batch.x, batch.d);
  const auto dy = context.tensor<T>(batch.dy), x = context.tensor<T>(sources.gathered ? gathered.x : batch.x);
  const auto factor = context.tensor(sources.factor), tiles = context.tensor(sources.kept.tiles),
             gradient = context.tensor(start);
  const auto xRows = context.tensor(gathered.rows), offsets = context.tensor(batch.offsets),
             tileOf = context.tensor(sources.kept.tileOf);
  WeightGradientParams params{dy,           x,       xRows,   offsets,          factor,     tileOf, tiles, gradient,
                              batch.rows(), batch.p, batch.d, batch.segments(), batch.units};
  if (!sources.gathered) params.xRows = {};
  if (sources.factor.empty()) params.factor = {};
  if (sources.kept.tileOf.empty()) params.tileOf = {}, params.tiles = {};
  context.backend().weightGradient(params);
  return gradient.values();
}

/// start + sum of factor * dy' x in float64.
std::vector<Sum> exactGradient(const SegmentBatch& batch, const std::vector<float>& factor,
                               const std::vector<float>& start) {
  std::vector<Sum> gradient(start.size());
  for (size_t i = 0; i < start.size(); ++i) gradient[i].add(static_cast<double>(start[i]));
  const auto size = static_cast<size_t>(batch.p * batch.d);
  for (int64_t s = 0; s < batch.segments(); ++s) {
    const double weight = factor.empty() ? 1 : factor[static_cast<size_t>(s % batch.units)];
    if (weight == 0) continue;
    const auto part = segmentGradient(batch, s);
    Sum* group = gradient.data() + static_cast<size_t>(s / batch.units) * size;
    for (size_t i = 0; i < size; ++i) {
      group[i].value += weight * part[i].value;
      group[i].magnitude += std::abs(weight) * part[i].magnitude;
    }
  }
  return gradient;
}

/// The batch without the units whose factor is 0; `factor` loses them too.
SegmentBatch withoutZeroUnits(const SegmentBatch& batch, std::vector<float>& factor) {
  std::vector<UnitRows> units;
  std::vector<float> left;
  for (int64_t u = 0; u < batch.units; ++u) {
    if (factor[static_cast<size_t>(u)] == 0) continue;
    UnitRows unit;
    for (int64_t s = u; s < batch.segments(); s += batch.units) {
      unit.x.emplace_back(batch.xOf(s), batch.xOf(s) + batch.rowsOf(s) * batch.d);
      unit.dy.emplace_back(batch.dyOf(s), batch.dyOf(s) + batch.rowsOf(s) * batch.p);
    }
    units.push_back(unit);
    left.push_back(factor[static_cast<size_t>(u)]);
  }
  factor = left;
  return assemble(units, batch.experts, batch.d, batch.p);
}

template <class T = float>
std::vector<float> biasGradientOf(const Context& context, const SegmentBatch& batch, const std::vector<float>& factors,
                                  const std::vector<float>& start) {
  const auto dy = context.tensor<T>(batch.dy);
  const auto factor = context.tensor(factors), gradient = context.tensor(start);
  const auto offsets = context.tensor(batch.offsets);
  context.backend().biasGradient({dy, offsets, factors.empty() ? Input<float>{} : Input<float>(factor), gradient,
                                  batch.rows(), batch.p, batch.segments(), batch.units});
  return gradient.values();
}

std::vector<Sum> exactBiasGradient(const SegmentBatch& batch, const std::vector<float>& factor,
                                   const std::vector<float>& start) {
  SegmentBatch ones = batch;
  ones.d = 1;
  ones.x.assign(static_cast<size_t>(batch.rows()), 1.0f);
  return exactGradient(ones, factor, start);
}

/// The rows of units with factor 0 become NaN: nothing may read them.
void poisonZeroUnits(SegmentBatch& batch, const std::vector<float>& factor) {
  for (int64_t s = 0; s < batch.segments(); ++s) {
    if (factor[static_cast<size_t>(s % batch.units)] != 0) continue;
    const int64_t first = batch.offsets[static_cast<size_t>(s)], rows = batch.rowsOf(s);
    std::fill_n(batch.x.begin() + first * batch.d, rows * batch.d, NAN);
    std::fill_n(batch.dy.begin() + first * batch.p, rows * batch.p, INFINITY);
  }
}

// Two groups of six units; unit 2 has no rows, unit 1 is left out by its factor, and the sums outlast a chunk of rows.
const std::vector<int32_t> kLengths = {3, 20, 0, 1, 270, 2, 0, 5, 0, 65, 1, 7};
const std::vector<float> kFactors = {0.5f, 0, 1, 2, 0.25f, 1e-3f};

}  // namespace

/// The gradient with and without factors, with rows gathered or not, against its reference.
template <class T>
void expectGradients(const Context& context, int64_t d, int64_t p, uint64_t round) {
  Random random(round);
  auto batch = stored<T>(randomBatch(random, kLengths, 2, d, p));
  const auto start = random.normals(2 * p * d);
  const auto name = label("d ", d, ", p ", p, typeName<T>);
  const Sources plain{{}, {}, round % 2 == 1};
  const auto all = weightGradientOf<T>(context, batch, plain, start);
  expectSums(all, once(name, [&] { return exactGradient(batch, {}, start); }), batch.rows(), name);
  context.sameInEveryRun("weightGradient, " + name, all);

  const auto& exact = once(name, [&] { return exactGradient(batch, kFactors, start); });
  poisonZeroUnits(batch, kFactors);
  const Sources scaled{kFactors, {}, round % 2 == 0};
  const auto weighted = weightGradientOf<T>(context, batch, scaled, start);
  expectSums(weighted, exact, batch.rows(), name + ", with factors");
  context.sameInEveryRun("weightGradient with factors, " + name, weighted);

  auto factorsLeft = kFactors;
  const SegmentBatch left = withoutZeroUnits(batch, factorsLeft);
  expectSame(weightGradientOf<T>(context, left, {factorsLeft, {}, false}, start), weighted,
             name + ", a unit left out against one with factor 0");
}

CONFORMANCE_TEST(weightGradient) {
  const auto sizes = raggedSizes();
  uint64_t round = 0;
  for (const int64_t d : {1, 7, 16, 17, 63, 64, 65, 129, 257}) {
    for (const int64_t shift : {0, 3}) {
      const int64_t p = sizes[(round + static_cast<uint64_t>(shift)) % sizes.size()];
      expectGradients<float>(context, d, p, round);
      if (shift == 3) ++round;
    }
  }
}

// As large as tiles are, and with lines that no 16 bytes divide.
CONFORMANCE_TEST(weightGradientOfBfloat16) {
  context.forEachReal([&]<class T>() {
    if (std::is_same_v<T, float>) return;
    uint64_t round = 0;
    for (const auto& [d, p] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {8, 8}, {7, 64}, {64, 64}, {72, 8}, {24, 136}, {136, 72}, {129, 130}, {65, 3}}) {
      expectGradients<T>(context, d, p, round++);
    }
  });
}

// Rows of many units in one step of a sum, of two, of one; the terms have one sign, so that what is cut off adds up.
CONFORMANCE_TEST(weightGradientOfShortUnits) {
  context.forEachReal([&]<class T>() {
    for (const int32_t length : {1, 2, 3, 7, 15, 16, 17, 33}) {
      Random random(static_cast<uint64_t>(length));
      const int64_t d = 72, p = 80, units = 96 / length + 2;
      auto batch = randomBatch(random, std::vector<int32_t>(static_cast<size_t>(units), length), 1, d, p);
      for (auto* values : {&batch.x, &batch.dy}) {
        for (float& value : *values) value = std::abs(value);
      }
      batch = stored<T>(batch);
      std::vector<float> factor;
      for (int64_t u = 0; u < units; ++u) factor.push_back(static_cast<float>(random.uniform(0.01, 1)));
      const std::vector<float> start(static_cast<size_t>(p * d));
      const auto name = label("units of ", length, typeName<T>);
      const auto gradient = weightGradientOf<T>(context, batch, {factor, {}, false}, start);
      expectSums(gradient, once(name, [&] { return exactGradient(batch, factor, start); }), batch.rows(), name);
      context.sameInEveryRun(name, gradient);
    }
  });
}

// Groups that several blocks of threads add up, of which one changes: the others' gradients keep their bits.
CONFORMANCE_TEST(weightGradientOfAGroupIsItsOwn) {
  context.forEachReal([&]<class T>() {
    const int64_t d = std::is_same_v<T, float> ? 9 : 24, p = 16, size = p * d;
    Random random(12);
    const auto settingOf = [&](const std::vector<int32_t>& lengths, float fill) {
      SegmentBatch batch = randomBatch(random, lengths, 3, d, p);
      for (int64_t i = 0; i < batch.offsets[4] * d; ++i) batch.x[static_cast<size_t>(i)] = fill;
      return batch;
    };
    const std::vector<float> factor = {0.5f, 0, 0.75f, 2}, start(static_cast<size_t>(3 * size));
    const SegmentBatch other = settingOf({3, 1, 0, 2, 700, 40, 500, 30, 600, 9, 1, 2}, 1);
    std::vector<float> first;
    for (const auto& [rows, fill] : std::vector<std::pair<int32_t, float>>{{2, 1}, {0, 1}, {551, 1}, {1200, NAN}}) {
      SegmentBatch batch = settingOf({3, 1, 0, rows, 700, 40, 500, 30, 600, 9, 1, 2}, fill);
      std::copy(other.x.begin() + other.offsets[4] * d, other.x.end(), batch.x.begin() + batch.offsets[4] * d);
      std::copy(other.dy.begin() + other.offsets[4] * p, other.dy.end(), batch.dy.begin() + batch.offsets[4] * p);
      batch = stored<T>(batch);
      const auto gradient = weightGradientOf<T>(context, batch, {factor, {}, rows > 2}, start);
      const std::vector<float> mine(gradient.begin() + size, gradient.end());
      const auto name = label("beside ", rows, " rows", typeName<T>);
      if (first.empty()) {
        expectSums(gradient, once(name, [&] { return exactGradient(batch, factor, start); }), batch.rows(), name);
        first = mine;
      }
      context.sameInEveryRun(name, mine);
      expectSame(mine, first, name);
    }
  });
}

// Operands too large to be copied at once: a group goes on where an earlier pass ended.
CONFORMANCE_TEST(weightGradientInSeveralPasses) {
  for (const auto& [d, p] : std::vector<std::pair<int64_t, int64_t>>{{7, 1100}, {1100, 7}}) {
    Random random(static_cast<uint64_t>(d));
    const SegmentBatch batch = randomBatch(random, {9, 500, 200, 40, 600, 0}, 2, d, p);
    const std::vector<float> factor = {0.5f, 2, 0.25f}, start = random.normals(2 * p * d);
    const auto name = label("d ", d, ", p ", p);
    const auto gradient = weightGradientOf(context, batch, {factor, {}, true}, start);
    expectSums(gradient, once(name, [&] { return exactGradient(batch, factor, start); }), batch.rows(), name);
    context.sameInEveryRun("weightGradient in passes, " + name, gradient);
  }
}

CONFORMANCE_TEST(weightGradientFromTiles) {
  context.forEachReal([&]<class T>() {
    for (const auto& [d, p] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 65}, {17, 7}, {17, 65}, {64, 8}, {64, 140}, {136, 72}, {300, 7}, {300, 65}}) {
      Random random(static_cast<uint64_t>(d + p));
      auto batch = stored<T>(randomBatch(random, kLengths, 2, d, p));
      const auto start = random.normals(2 * p * d);
      const auto name = label("from tiles, d ", d, ", p ", p, typeName<T>);
      const auto& exact = once(name, [&] { return exactGradient(batch, kFactors, start); });
      // Five tiles in one group, four in the other, slots in another order than segments; their rows must not be read
      // any more.
      Tiles kept{std::vector<int32_t>(kLengths.size(), -1), {}};
      std::vector<std::vector<float>> tiles(9);
      int32_t slot = 9;
      for (const int64_t s : {0, 1, 3, 4, 5, 6, 7, 9, 11}) {
        kept.tileOf[static_cast<size_t>(s)] = --slot;
        const auto& exactTile = once(label(name, ", segment ", s), [&] { return segmentGradient(batch, s); });
        for (const Sum& value : exactTile) {
          tiles[static_cast<size_t>(slot)].push_back(s % 6 == 1 ? NAN : static_cast<float>(value.value));
        }
        std::fill_n(batch.dy.begin() + batch.offsets[static_cast<size_t>(s)] * p, batch.rowsOf(s) * p, NAN);
      }
      kept.tiles = join(tiles);
      const auto gradient = weightGradientOf<T>(context, batch, {kFactors, kept, false}, start);
      expectSums(gradient, exact, batch.rows(), name);
      context.sameInEveryRun(name, gradient);
    }
  });
}

// More units than a block has threads: with rows, without, left out, and from tiles.
CONFORMANCE_TEST(weightGradientOfManyUnits) {
  context.forEachReal([&]<class T>() {
    const int64_t d = 8, p = 16, units = 600;
    Random random(5);
    std::vector<int32_t> lengths;
    std::vector<float> factor;
    for (int64_t s = 0; s < 2 * units; ++s) lengths.push_back(random.below(3));
    for (int64_t u = 0; u < units; ++u) factor.push_back(u % 11 == 3 ? 0 : static_cast<float>(random.uniform(0.1, 1)));
    auto batch = stored<T>(randomBatch(random, lengths, 2, d, p));
    const std::vector<float> start = random.normals(2 * p * d);
    const auto name = label("many units", typeName<T>);
    const auto& exact = once(name, [&] { return exactGradient(batch, factor, start); });
    poisonZeroUnits(batch, factor);
    Tiles kept{std::vector<int32_t>(lengths.size(), -1), {}};
    for (int64_t s = 0; s < batch.segments(); s += 7) {
      kept.tileOf[static_cast<size_t>(s)] = static_cast<int32_t>(s / 7);
      for (const Sum& value : segmentGradient(batch, s)) kept.tiles.push_back(static_cast<float>(value.value));
    }
    const auto gradient = weightGradientOf<T>(context, batch, {factor, kept, true}, start);
    expectSums(gradient, exact, batch.rows(), name);
    context.sameInEveryRun(name, gradient);
  });
}

CONFORMANCE_TEST(biasGradient) {
  context.forEachReal([&]<class T>() {
    for (const int64_t p : {1, 7, 16, 17, 63, 64, 65, 127, 128, 129, 300}) {
      Random random(static_cast<uint64_t>(p));
      SegmentBatch batch = stored<T>(randomBatch(random, kLengths, 2, 1, p));
      const auto start = random.normals(2 * p);
      const auto name = label("bias, p ", p, typeName<T>);
      const auto all = biasGradientOf<T>(context, batch, {}, start);
      expectSums(all, exactBiasGradient(batch, {}, start), batch.rows(), name);
      context.sameInEveryRun(name, all);
      const auto exact = exactBiasGradient(batch, kFactors, start);
      poisonZeroUnits(batch, kFactors);
      const auto weighted = biasGradientOf<T>(context, batch, kFactors, start);
      expectSums(weighted, exact, batch.rows(), name + ", with factors");
      context.sameInEveryRun(name + ", with factors", weighted);
      auto factorsLeft = kFactors;
      const SegmentBatch left = withoutZeroUnits(batch, factorsLeft);
      expectSame(biasGradientOf<T>(context, left, factorsLeft, start), weighted,
                 name + ", a unit left out against one with factor 0");
    }
    // More rows than one round of chunks.
    Random random(5);
    const SegmentBatch batch = stored<T>(randomBatch(random, {4999, 0, 4100}, 1, 1, 5));
    const auto start = random.normals(5);
    const std::vector<float> factor = {0.5f, 1, 0.25f};
    const auto gradient = biasGradientOf<T>(context, batch, factor, start);
    expectSums(gradient, exactBiasGradient(batch, factor, start), batch.rows(), "bias of many rows");
    context.sameInEveryRun(label("bias of many rows", typeName<T>), gradient);
  });
}

CONFORMANCE_TEST(gradientsOfNothing) {
  Random random(1);
  const auto start = random.normals(2 * 17 * 7), biasStart = random.normals(2 * 7);
  for (const std::vector<int32_t>& lengths : {std::vector<int32_t>{}, {0, 0}, {0, 4}}) {
    // No segments, empty ones, and rows whose only unit has factor 0.
    const SegmentBatch batch = lengths.empty() ? SegmentBatch{17, 7, 2, 0, {}, {}, {0}}
                                               : randomBatch(random, {lengths[0], lengths[1], 0, lengths[1]}, 2, 17, 7);
    const auto size = static_cast<std::ptrdiff_t>(batch.experts * 7);
    const std::vector<float> before(start.begin(), start.begin() + 17 * size),
        biasBefore(biasStart.begin(), biasStart.begin() + size);
    expectSame(weightGradientOf(context, batch, {{1, 0}, {}, false}, before), before, "a gradient of nothing");
    expectSame(biasGradientOf(context, batch, {1, 0}, biasBefore), biasBefore, "a bias gradient of nothing");
  }
}

CONFORMANCE_TEST(gradientsOfNonFiniteRows) {
  context.forEachReal([&]<class T>() {
    const int64_t d = std::is_same_v<T, float> ? 33 : 40, p = std::is_same_v<T, float> ? 17 : 24;
    Random random(4);
    const SegmentBatch clean = randomBatch(random, kLengths, 2, d, p);
    const std::vector<float> start(static_cast<size_t>(2 * p * d));
    const auto before = weightGradientOf<T>(context, clean, {kFactors, {}, false}, start);
    SegmentBatch batch = clean;
    const int64_t row = batch.offsets[9];  // unit 3 of group 1
    batch.dy[static_cast<size_t>(row * p + 16)] = NAN;
    const auto after = weightGradientOf<T>(context, batch, {kFactors, {}, false}, start);
    for (int64_t i = 0; i < 2 * p * d; ++i) {
      const auto at = static_cast<size_t>(i);
      const bool reached = i >= p * d && i / d % p == 16;
      expect(reached ? std::isnan(after[at]) : after[at] == before[at],
             label("NaN in one column of dy", typeName<T>, ": element ", i));
    }
  });
}

CONFORMANCE_TEST(gradientsRefuse) {
  const auto dy = context.result<float>(4 * 3), x = context.result<float>(4 * 2),
             gradient = context.result<float>(2 * 6), factor = context.result<float>(2),
             tiles = context.result<float>(6), biasGradient = context.result<float>(6);
  const auto offsets = context.tensor(std::vector<int32_t>{0, 1, 2, 2, 4}),
             falling = context.tensor(std::vector<int32_t>{0, 2, 1, 2, 4}),
             beyond = context.tensor(std::vector<int32_t>{0, 1, 2, 2, 5}),
             rows = context.tensor(std::vector<int32_t>{3, 3, 0, 1}),
             low = context.tensor(std::vector<int32_t>{-1, 3, 0, 1}),
             high = context.tensor(std::vector<int32_t>{4, 3, 0, 1}),
             tileOf = context.tensor(std::vector<int32_t>{-1, 0, -1, -1}),
             wrongTile = context.tensor(std::vector<int32_t>{-1, 1, -1, -1}),
             lowTile = context.tensor(std::vector<int32_t>{-3, 0, -1, -1});
  const WeightGradientParams good{dy, x, rows, offsets, factor, tileOf, tiles, gradient, 4, 3, 2, 4, 2};
  context.backend().weightGradient(good);
  const auto refuses = [&](const char* code, const char* what, auto change) {
    auto params = good;
    change(params);
    expectError(code, [&] { context.backend().weightGradient(params); }, what);
  };
  refuses("SHAPE_MISMATCH", "dy", [&](auto& p) { p.dy.size -= 1; });
  refuses("SHAPE_MISMATCH", "ragged x", [&](auto& p) { p.x.size -= 1; });
  refuses("SHAPE_MISMATCH", "x without xRows", [&](auto& p) { p.xRows = {}, p.x.size -= 2; });
  refuses("SHAPE_MISMATCH", "xRows", [&](auto& p) { p.xRows.size -= 1; });
  refuses("SHAPE_MISMATCH", "segmentOffsets", [&](auto& p) { p.segmentOffsets.size -= 1; });
  refuses("SHAPE_MISMATCH", "factor", [&](auto& p) { p.factor.size -= 1; });
  refuses("SHAPE_MISMATCH", "tileOf", [&](auto& p) { p.tileOf.size -= 1; });
  refuses("SHAPE_MISMATCH", "ragged tiles", [&](auto& p) { p.tiles.size -= 1; });
  refuses("SHAPE_MISMATCH", "gradient", [&](auto& p) { p.gradient.size -= 6; });
  refuses("SHAPE_MISMATCH", "gradient left out", [&](auto& p) { p.gradient = {}; });
  refuses("INVALID_ARGUMENT", "a row below 0", [&](auto& p) { p.xRows = low; });
  refuses("INVALID_ARGUMENT", "a row out of range", [&](auto& p) { p.xRows = high; });
  refuses("INVALID_ARGUMENT", "falling offsets", [&](auto& p) { p.segmentOffsets = falling; });
  refuses("INVALID_ARGUMENT", "offsets past the rows", [&](auto& p) { p.segmentOffsets = beyond; });
  refuses("INVALID_ARGUMENT", "a tile out of range", [&](auto& p) { p.tileOf = wrongTile; });
  refuses("INVALID_ARGUMENT", "a tile below kTileOfRows", [&](auto& p) { p.tileOf = lowTile; });
  refuses("INVALID_ARGUMENT", "tiles left out", [&](auto& p) { p.tiles = {}; });
  refuses("INVALID_ARGUMENT", "d 0", [&](auto& p) { p.d = 0; });
  refuses("INVALID_ARGUMENT", "no units", [&](auto& p) { p.units = 0; });
  refuses("INVALID_ARGUMENT", "segments no multiple of units", [&](auto& p) { p.units = 3; });
  const BiasGradientParams bias{dy, offsets, factor, biasGradient, 4, 3, 4, 2};
  context.backend().biasGradient(bias);
  const auto biasRefuses = [&](const char* code, const char* what, auto change) {
    auto params = bias;
    change(params);
    expectError(code, [&] { context.backend().biasGradient(params); }, what);
  };
  biasRefuses("SHAPE_MISMATCH", "dy", [&](auto& p) { p.dy.size -= 1; });
  biasRefuses("SHAPE_MISMATCH", "segmentOffsets", [&](auto& p) { p.segmentOffsets.size -= 1; });
  biasRefuses("SHAPE_MISMATCH", "factor", [&](auto& p) { p.factor.size -= 1; });
  biasRefuses("SHAPE_MISMATCH", "gradient", [&](auto& p) { p.gradient.size -= 1; });
  biasRefuses("INVALID_ARGUMENT", "falling offsets", [&](auto& p) { p.segmentOffsets = falling; });
  biasRefuses("INVALID_ARGUMENT", "p 0", [&](auto& p) { p.p = 0; });
  biasRefuses("INVALID_ARGUMENT", "segments no multiple of units", [&](auto& p) { p.units = 3; });
}

}  // namespace dp_moe::conformance
