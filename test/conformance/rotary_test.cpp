#include <cmath>

#include "harness.h"

namespace dp_moe::conformance {

namespace {

template <class T>
void checkRotary(const Context& context, int64_t rows, int64_t heads, int64_t headSize) {
  Random random(static_cast<uint64_t>(headSize));
  const int64_t half = headSize / 2, d = heads * headSize;
  const auto x = rounded<T>(random.normals(rows * d));
  std::vector<int32_t> positions;
  for (int64_t r = 0; r < rows; ++r) positions.push_back(random.below(r % 2 == 0 ? 3000 : 1000000));
  std::vector<float> frequency;
  for (int64_t c = 0; c < half; ++c) {
    frequency.push_back(static_cast<float>(std::pow(10000.0, -static_cast<double>(c) / static_cast<double>(half))));
  }
  std::vector<double> want(x.size()), wantInverse(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t c = 0; c < half; ++c) {
        const auto row = static_cast<size_t>(r);
        const float angle = static_cast<float>(positions[row]) * frequency[static_cast<size_t>(c)];
        const double cosine = std::cos(static_cast<double>(angle)), sine = std::sin(static_cast<double>(angle));
        const auto lower = static_cast<size_t>(r * d + h * headSize + c), upper = lower + static_cast<size_t>(half);
        want[lower] = x[lower] * cosine - x[upper] * sine;
        want[upper] = x[upper] * cosine + x[lower] * sine;
        wantInverse[lower] = x[lower] * cosine + x[upper] * sine;
        wantInverse[upper] = x[upper] * cosine - x[lower] * sine;
      }
    }
  }
  const auto xT = context.tensor<T>(x), y = context.result<T>(rows * d);
  const auto positionsT = context.tensor(positions);
  const auto frequencyT = context.tensor(frequency);
  const auto name = label("rows ", rows, ", heads ", heads, ", headSize ", headSize, ", ", nameOf(dtypeOf<T>));
  context.backend().rotaryEmbedding({xT, positionsT, frequencyT, y, rows, heads, headSize, false});
  expectNear(y.floats(), want, 1e-6 + storageError<T>, 1e-6, "rotary, " + name);
  context.sameInEveryRun("rotary, " + name, y.values());
  context.backend().rotaryEmbedding({xT, positionsT, frequencyT, y, rows, heads, headSize, true});
  expectNear(y.floats(), wantInverse, 1e-6 + storageError<T>, 1e-6, "inverse rotary, " + name);
  context.backend().rotaryEmbedding({xT, positionsT, frequencyT, xT, rows, heads, headSize, true});
  expectSame(xT.values(), y.values(), "in place, " + name);
}

}  // namespace

CONFORMANCE_TEST(rotaryEmbedding) {
  struct RotaryShape {
    int64_t heads, headSize;
  };
  context.forEachReal([&]<class T>() {
    for (const auto& [heads, headSize] : std::vector<RotaryShape>{{1, 2}, {2, 6}, {3, 16}, {4, 34}, {2, 128}}) {
      for (const int64_t rows : {0, 1, 90}) checkRotary<T>(context, rows, heads, headSize);
    }
  });
  auto& backend = context.backend();
  const auto six = context.result<float>(6), three = context.result<float>(3);
  const auto positions = context.tensor(std::vector<int32_t>{0});
  expectError(
      "INVALID_ARGUMENT", [&] { backend.rotaryEmbedding({six, positions, three, six, 1, 2, 3, false}); }, "odd size");
  expectError(
      "SHAPE_MISMATCH", [&] { backend.rotaryEmbedding({six, positions, six, six, 1, 1, 6, false}); }, "frequency");
  expectError("SHAPE_MISMATCH", [&] { backend.rotaryEmbedding({six, positions, three, three, 1, 1, 6, false}); }, "y");
}

}  // namespace dp_moe::conformance
