#include "schedule.h"

#include <cstddef>
#include <numeric>
#include <utility>

namespace dp_moe::emulation {

std::vector<uint64_t> shuffledNumbers(uint64_t count, Dice& dice) {
  std::vector<uint64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), uint64_t{0});
  for (uint64_t i = count; i > 1; --i) std::swap(numbers[i - 1], numbers[dice.below(static_cast<uint32_t>(i))]);
  return numbers;
}

void Schedule::start(uint32_t warps, uint64_t seed) {
  dice_ = Dice(seed);
  ready_.fill(0);
  warps_ = 0;
  turn_ = 0;
  ranked_ = dice_.below(2) == 0;
  const std::vector<uint64_t> order = shuffledNumbers(warps, dice_);
  for (uint32_t warp = 0; warp < warps; ++warp) {
    rank_[warp] = static_cast<uint8_t>(order[warp]);
    speed_[warp] = static_cast<uint8_t>(1u << dice_.below(7));
  }
}

int Schedule::chooseWarp() {
  if (ranked_) {
    int best = std::countr_zero(warps_);
    for (uint32_t left = warps_ & (warps_ - 1); left != 0; left &= left - 1) {
      const int warp = std::countr_zero(left);
      if (rank_[static_cast<size_t>(warp)] < rank_[static_cast<size_t>(best)]) best = warp;
    }
    return best;
  }
  for (int tries = 0; tries < 64; ++tries) {
    const int warp = dice_.bit(warps_);
    if (dice_.below(64) < speed_[static_cast<size_t>(warp)]) return warp;
  }
  return std::countr_zero(warps_);
}

int Schedule::next() {
  uint32_t lanes = ready_[static_cast<size_t>(current_)] & turn_;
  if (lanes == 0) {
    if (warps_ == 0) return -1;
    current_ = chooseWarp();
    lanes = turn_ = ready_[static_cast<size_t>(current_)];
  }
  const int lane = dice_.bit(lanes);
  uint32_t& ready = ready_[static_cast<size_t>(current_)];
  turn_ &= ~(1u << lane);
  ready &= ~(1u << lane);
  if (ready == 0) warps_ &= ~(1u << current_);
  return current_ * 32 + lane;
}

}  // namespace dp_moe::emulation
