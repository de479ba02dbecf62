#pragma once

#include <algorithm>
#include <cstdint>

#include "checks.h"
#include "launcher.h"

namespace dp_moe {

/// Whether memory starts at a multiple of 16 bytes.
inline bool aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

/// A grid of blocks that stay and share at most `pieces` pieces of work, numbered in 32 bits on the device.
inline Dim stayingGrid(const Launcher& launcher, const char* op, int64_t pieces, int blocksPerMultiprocessor) {
  const int64_t atOnce = int64_t{launcher.multiprocessors()} * blocksPerMultiprocessor;
  checkThat(pieces <= INT32_MAX - atOnce, op, "an output of fewer elements");
  return {static_cast<uint32_t>(std::min(pieces, atOnce))};
}

}  // namespace dp_moe
