#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace dp_moe::emulation {

/// Random numbers of a schedule.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019) {}
  uint32_t roll() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(uint64_t{roll()} * limit >> 32); }
  /// One of the set bits, by its number.
  int bit(uint32_t mask) {
    const int turn = static_cast<int>(roll() % 32);
    return (std::countr_zero(std::rotr(mask, turn)) + turn) % 32;
  }

 private:
  uint64_t state_;
};

/// Which thread of a block runs next. Every block has its own manner: in some the first warp of a random order runs
/// whenever it can, so that warps are as far apart as barriers allow; in the others all take turns at random speeds.
class Schedule {
 public:
  void start(uint32_t warps, uint64_t seed);
  void makeReady(uint32_t warp, uint32_t lanes) {
    ready_[warp] |= lanes;
    warps_ |= 1u << warp;
  }
  /// The next thread to run, or -1 when none can.
  int next();

 private:
  std::array<uint32_t, 32> ready_{};
  uint32_t warps_ = 0;  // those with ready lanes
  int current_ = 0;
  uint32_t turn_ = 0;  // lanes of the current warp that are left in its turn
  bool ranked_ = false;
  std::array<uint8_t, 32> rank_{};   // of each warp
  std::array<uint8_t, 32> speed_{};  // of 64
  Dice dice_{1};

  int chooseWarp();
};

/// 0, 1, .. count - 1 in random order.
std::vector<uint64_t> shuffledNumbers(uint64_t count, Dice& dice);

}  // namespace dp_moe::emulation
