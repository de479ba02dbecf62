#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

CONFORMANCE_TEST(embedding) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : widths()) {
      for (const int64_t rows : {0, 1, 5, 300}) {
        Random random(static_cast<uint64_t>(rows * 100 + d));
        const int32_t vocabulary = 11;
        const auto table = random.normals(vocabulary * d);
        std::vector<int32_t> ids(static_cast<size_t>(rows));
        for (auto& id : ids) id = random.below(vocabulary);
        const auto y = context.result<T>(rows * d);
        const auto tableT = context.tensor(table);
        const auto idsT = context.tensor(ids);
        context.backend().embedding({tableT, idsT, y, rows, d, vocabulary, 2.5f});
        std::vector<double> expected;
        for (const auto id : ids) {
          for (int64_t c = 0; c < d; ++c) expected.push_back(2.5 * table[static_cast<size_t>(id * d + c)]);
        }
        expectNear(y.floats(), expected, 1e-7 + storageError<T>, 0, "embedding");
        context.sameInEveryRun(label("embedding ", d, " ", rows, nameOf(dtypeOf<T>)), y.values());
      }
    }
  });
  const auto table = context.tensor(std::vector<float>(6));
  const auto y = context.result<float>(4);
  for (const int32_t id : {-1, 3}) {
    const auto ids = context.tensor(std::vector<int32_t>{0, id});
    expectError("INVALID_ARGUMENT", [&] { context.backend().embedding({table, ids, y, 2, 2, 3, 1}); }, "a wrong id");
  }
  const auto ids = context.tensor(std::vector<int32_t>{0, 1});
  expectError("SHAPE_MISMATCH", [&] { context.backend().embedding({table, ids, y, 2, 2, 4, 1}); }, "a short table");
  expectError("SHAPE_MISMATCH", [&] { context.backend().embedding({table, ids, y, 3, 2, 3, 1}); }, "short ids");
}

CONFORMANCE_TEST(pool) {
  context.forEachReal([&]<class T>() {
    for (const auto& lengths : unitLengths()) {
      for (const int64_t d : widths()) {
        for (const bool weighted : {false, true}) {
          Random random(static_cast<uint64_t>(d));
          const auto offsets = offsetsOf(lengths);
          const int64_t rows = offsets.back();
          const auto units = static_cast<int64_t>(lengths.size());
          const auto x = rounded<T>(random.normals(rows * d)), dy = rounded<T>(random.normals(units * d));
          const auto weights = random.normals(rows);
          const auto y = context.result<T>(units * d), dx = context.result<T>(rows * d), xT = context.tensor<T>(x),
                     dyT = context.tensor<T>(dy);
          const auto weightsT = context.tensor(weights);
          const auto offsetsT = context.tensor(offsets);

          context.backend().pool({xT, weighted ? Input<float>(weightsT) : Input<float>{}, offsetsT, y, rows, d, units});
          context.backend().poolBackward(
              {dyT, weighted ? Input<float>(weightsT) : Input<float>{}, offsetsT, dx, rows, d, units});

          std::vector<double> expected(static_cast<size_t>(units * d)), expectedDx;
          for (size_t u = 0; u < lengths.size(); ++u) {
            for (int64_t r = offsets[u]; r < offsets[u + 1]; ++r) {
              const double weight = weighted ? weights[static_cast<size_t>(r)] : 1.0 / lengths[u];
              for (int64_t c = 0; c < d; ++c) {
                const auto at = static_cast<size_t>(static_cast<int64_t>(u) * d + c);
                expected[at] += weight * x[static_cast<size_t>(r * d + c)];
                expectedDx.push_back(weight * dy[at]);
              }
            }
          }
          const auto name = describe(lengths, d);
          expectNear(y.floats(), expected, 1e-5 + storageError<T>, 1e-5, "pool, " + name);
          expectNear(dx.floats(), expectedDx, 1e-6 + storageError<T>, 0, "poolBackward, " + name);
          context.sameInEveryRun(label("pool ", name, weighted, nameOf(dtypeOf<T>)), y.values());
        }
      }
    }
  });
}

CONFORMANCE_TEST(rowsRefuseWrongOffsets) {
  const auto x = context.tensor(std::vector<float>(6)), y = context.result<float>(4);
  for (const auto& wrong : {std::vector<int32_t>{0, 2, 1}, {0, 2, 4}, {-1, 1, 3}}) {
    const auto offsets = context.tensor(wrong), right = context.tensor(std::vector<int32_t>{0, 1, 3});
    auto& backend = context.backend();
    expectError("INVALID_ARGUMENT", [&] { backend.pool({x, {}, offsets, y, 3, 2, 2}); }, "pool");
    expectError("INVALID_ARGUMENT", [&] { backend.poolBackward({y, {}, offsets, x, 3, 2, 2}); }, "poolBackward");
    const auto joined = context.result<float>(12);
    expectError("INVALID_ARGUMENT", [&] { backend.concatenateRows({x, offsets, x, right, joined, 2, 2}); }, "a's");
    expectError("INVALID_ARGUMENT", [&] { backend.concatenateRows({x, right, x, offsets, joined, 2, 2}); }, "b's");
  }
}

CONFORMANCE_TEST(poolOfAUnitIsItsOwn) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {17, 64}) {
      Random random(5);
      const auto own = random.normals(70 * d);
      std::vector<std::vector<float>> results;
      for (const int32_t before : {0, 1, 33}) {
        auto others = random.normals(before * d, 1e30);
        if (before > 0) others[0] = NAN;
        const auto x = context.tensor<T>(join<float>({others, own}));
        const auto offsets = context.tensor(offsetsOf({before, 70}));
        const auto y = context.result<T>(2 * d);
        context.backend().pool({x, {nullptr, 0}, offsets, y, before + 70, d, 2});
        const auto values = y.floats();
        results.emplace_back(values.begin() + d, values.end());
        expectSame(results.back(), results.front(), "a unit's pool among others");
      }
    }
  });
}

CONFORMANCE_TEST(gatherRows) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : widths()) {
      for (const int64_t rows : {0, 1, 7, 200}) {
        for (const bool scaled : {false, true}) {
          Random random(static_cast<uint64_t>(d + rows));
          const auto x = rounded<T>(random.normals(9 * d)), scale = random.normals(rows);
          std::vector<int32_t> index(static_cast<size_t>(rows));
          for (auto& i : index) i = random.below(9);
          const int64_t count = rows - rows / 3;  // rows past the count stay, whatever their index
          for (auto r = static_cast<size_t>(count); r < index.size(); ++r) index[r] = -1;
          const auto xT = context.tensor<T>(x);
          const auto scaleT = context.tensor(scale);
          const auto indexT = context.tensor(index);
          const auto countT = context.tensor(std::vector<int32_t>{0, 1, static_cast<int32_t>(count)});
          const auto y = context.result<T>(rows * d);
          context.backend().gatherRows(
              {xT, indexT, scaled ? Input<float>(scaleT) : Input<float>{}, countT, y, rows, d});
          std::vector<double> expected(static_cast<size_t>(rows * d), -777);
          for (int64_t r = 0; r < count; ++r) {
            for (int64_t c = 0; c < d; ++c) {
              const double value = x[static_cast<size_t>(index[static_cast<size_t>(r)] * d + c)];
              expected[static_cast<size_t>(r * d + c)] = scaled ? value * scale[static_cast<size_t>(r)] : value;
            }
          }
          expectNear(y.floats(), expected, 1e-7 + storageError<T>, 0, "gatherRows");
        }
      }
    }
  });
  const auto x = context.tensor(std::vector<float>(6)), y = context.result<float>(4);
  for (const int32_t wrong : {-1, 3}) {
    const auto index = context.tensor(std::vector<int32_t>{0, wrong});
    expectError(
        "INVALID_ARGUMENT", [&] { context.backend().gatherRows({x, index, {}, {}, y, 2, 2}); }, "a wrong index");
  }
  const auto index = context.tensor(std::vector<int32_t>{0, 1});
  expectError("SHAPE_MISMATCH", [&] { context.backend().gatherRows({x, index, {}, {}, y, 2, 4}); }, "ragged x");
}

CONFORMANCE_TEST(combineRows) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : widths()) {
      for (const int64_t perRow : {1, 2, 3}) {
        for (const bool accumulate : {false, true}) {
          Random random(static_cast<uint64_t>(d + perRow));
          const int64_t rows = 41, slots = 60;
          const auto x = rounded<T>(random.normals(slots * d)), start = rounded<T>(random.normals(rows * d)),
                     weight = random.normals(rows * perRow);
          std::vector<int32_t> slot(static_cast<size_t>(rows * perRow));
          for (auto& s : slot) s = random.below(static_cast<int32_t>(slots) + 10) - 10;
          const auto xT = context.tensor<T>(x), y = context.tensor<T>(start);
          const auto weightT = context.tensor(weight);
          const auto slotT = context.tensor(slot);
          const bool weighted = !accumulate || perRow > 1;
          context.backend().combineRows(
              {xT, slotT, weighted ? Input<float>(weightT) : Input<float>{}, y, rows, d, perRow, accumulate});
          std::vector<double> expected;
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < d; ++c) {
              double sum = accumulate ? start[static_cast<size_t>(r * d + c)] : 0;
              for (int64_t j = 0; j < perRow; ++j) {
                const auto at = static_cast<size_t>(r * perRow + j);
                if (slot[at] < 0) continue;
                sum += (weighted ? weight[at] : 1.0) * x[static_cast<size_t>(slot[at] * d + c)];
              }
              expected.push_back(sum);
            }
          }
          expectNear(y.floats(), expected, 1e-6 + storageError<T>, 1e-6, "combineRows");
          context.sameInEveryRun(label("combineRows ", d, " ", perRow, accumulate, nameOf(dtypeOf<T>)), y.values());
        }
      }
    }
  });
  const auto x = context.tensor(std::vector<float>(6)), y = context.result<float>(2);
  const auto slot = context.tensor(std::vector<int32_t>{3});
  expectError(
      "INVALID_ARGUMENT", [&] { context.backend().combineRows({x, slot, {}, y, 1, 2, 1, false}); }, "a wrong slot");
  // A dropped slot's row is not read: NaN there does not reach the sum.
  auto poisoned = std::vector<float>(6, 1.0f);
  poisoned[4] = poisoned[5] = NAN;
  const auto poisonedT = context.tensor(poisoned);
  const auto dropped = context.tensor(std::vector<int32_t>{0, -1});
  context.backend().combineRows({poisonedT, dropped, {}, y, 1, 2, 2, false});
  expectNear(y.values(), {1, 1}, 0, 0, "a dropped slot");
}

CONFORMANCE_TEST(concatenate) {
  context.forEachReal([&]<class T>() {
    for (const int64_t d : {1, 3, 16}) {
      Random random(static_cast<uint64_t>(d));
      const std::vector<int32_t> aLengths = {2, 0, 1, 5, 0}, bLengths = {0, 3, 1, 2, 0};
      const auto aOffsets = offsetsOf(aLengths), bOffsets = offsetsOf(bLengths);
      const auto a = fromFloats<T>(random.normals(aOffsets.back() * d)),
                 b = fromFloats<T>(random.normals(bOffsets.back() * d));
      std::vector<std::vector<T>> parts;
      for (size_t u = 0; u < aLengths.size(); ++u) {
        parts.push_back(rowsOfUnit(a, aOffsets, u, d));
        parts.push_back(rowsOfUnit(b, bOffsets, u, d));
      }
      const auto aT = context.tensor(a), bT = context.tensor(b);
      const auto aOffsetsT = context.tensor(aOffsets), bOffsetsT = context.tensor(bOffsets);
      const auto y = context.result<T>(static_cast<int64_t>(a.size() + b.size()));
      context.backend().concatenateRows({aT, aOffsetsT, bT, bOffsetsT, y, d, 5});
      expectSame(y.values(), join(parts), "concatenateRows");
      expectError(
          "SHAPE_MISMATCH", [&] { context.backend().concatenateRows({aT, aOffsetsT, bT, bOffsetsT, y, d, 4}); },
          "offsets of another number of units");
      const auto short_ = context.result<T>(d);
      expectError(
          "SHAPE_MISMATCH", [&] { context.backend().concatenateRows({aT, aOffsetsT, bT, bOffsetsT, short_, d, 5}); },
          "a short y");
    }
  });
  const auto a = context.tensor(std::vector<int32_t>{1, 2, 3}), b = context.tensor(std::vector<int32_t>{7, 8});
  const auto aOffsets = context.tensor(std::vector<int32_t>{0, 1, 3}),
             bOffsets = context.tensor(std::vector<int32_t>{0, 2, 2});
  const auto y = context.result<int32_t>(5);
  context.backend().concatenateIndices({a, aOffsets, b, bOffsets, y, 2});
  expectSame(y.values(), {1, 7, 8, 2, 3}, "concatenateIndices");
}

}  // namespace dp_moe::conformance
