#pragma once

#include <cstdint>

namespace dp_moe {

/// Rows of up to kWarpRow elements get a warp each, longer ones a block.
constexpr int64_t kWarpRow = 1024;
constexpr int kWarpTeams = 4;       // rows of a block in the first case
constexpr int kBlockThreads = 512;  // in the second

/// How a row lies in memory: a thread takes n elements at a time, in one access where rows are aligned.
struct RowOrder {
  bool packed;   // n is 16 bytes' worth, else 1: a function of the row's length and type
  bool aligned;  // rows start at multiples of 16 bytes
};

}  // namespace dp_moe
