#include "random/poisson.h"

#include <string>

#include "error.h"
#include "random/chacha.h"

namespace dp_moe {

namespace {

constexpr int kUnitsPerBlock = 8;
constexpr int kLanes = 4;  // blocks made at once

typedef uint32_t Words4 __attribute__((vector_size(4 * kLanes)));

struct FourBlocks {
  using Word = Words4;
  template <int n>
  DP_MOE_RANDOM_INLINE Word rotate(Word x) {
    return (x << n) | (x >> (32 - n));
  }
};

RandomBlock samplingBlock(uint64_t step, uint32_t counter) {
  return {counter, purposeWord(RandomPurpose::sampling, 0), static_cast<uint32_t>(step), 0};
}

double uniformFrom(uint32_t low, uint32_t high) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 32 | low) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

void checkStep(uint64_t step) {
  if (step >> 32 != 0) {
    throw Error("INVALID_ARGUMENT", "poissonSample: expected a step below 2^32, got " + std::to_string(step));
  }
}

}  // namespace

double samplingUniform(const uint32_t key[8], uint64_t step, uint32_t unit) {
  checkStep(step);
  uint32_t words[16];
  chachaBlock(key, samplingBlock(step, unit / kUnitsPerBlock), words);
  const uint32_t* draw = words + unit % kUnitsPerBlock * 2;
  return uniformFrom(draw[0], draw[1]);
}

std::vector<int32_t> poissonSample(const uint32_t key[8], uint64_t step, int64_t population, double q) {
  checkStep(step);
  if (!(q >= 0 && q <= 1)) {
    throw Error("INVALID_ARGUMENT", "poissonSample: expected a sampling rate in [0, 1], got " + std::to_string(q));
  }
  if (population < 0 || population > INT32_MAX) {
    throw Error("INVALID_ARGUMENT",
                "poissonSample: expected a population in [0, 2^31), got " + std::to_string(population));
  }
  std::vector<int32_t> units;
  uint32_t start[16];
  chachaState(key, samplingBlock(step, 0), start);
  for (int64_t first = 0; first < population; first += kLanes * kUnitsPerBlock) {
    Words4 state[16], words[16];
    for (int i = 0; i < 16; ++i) state[i] = start[i] - Words4{};
    state[12] += static_cast<uint32_t>(first / kUnitsPerBlock) + Words4{0, 1, 2, 3};
    for (int i = 0; i < 16; ++i) words[i] = state[i];
    chachaRounds<FourBlocks>(words);
    for (int i = 0; i < 16; ++i) words[i] += state[i];
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int j = 0; j < kUnitsPerBlock; ++j) {
        const int64_t unit = first + lane * kUnitsPerBlock + j;
        if (unit < population && uniformFrom(words[2 * j][lane], words[2 * j + 1][lane]) < q) {
          units.push_back(static_cast<int32_t>(unit));
        }
      }
    }
  }
  return units;
}

}  // namespace dp_moe
