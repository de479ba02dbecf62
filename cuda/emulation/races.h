#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace dp_moe::emulation {

/// Finds two threads of a launch that use the same memory, one of them to write it, with nothing between that orders
/// them: a __syncthreads of their block, a __syncwarp of their warp; blocks are never ordered. Kernels call it when
/// they are compiled with -fsanitize=thread (tsan_hooks.cpp).
///
/// Per pair of bytes it knows the last write, and the last read with whether others read in the same interval.
class RaceDetector {
 public:
  /// Whether there are kernels that tell.
  static inline bool watches = false;

  void startLaunch();
  void startBlock() { ++block_, ++interval_, warpIntervals_.fill(0); }
  void passBlockBarrier() { ++interval_, warpIntervals_.fill(0); }
  void passWarpBarrier(uint32_t warp) { ++warpIntervals_[warp]; }

  void read(const void* address, size_t bytes, uint32_t thread, const void* code);
  void write(const void* address, size_t bytes, uint32_t thread, const void* code);

  /// What was found first; empty when nothing was.
  const std::string& found() const { return found_; }

 private:
  struct Access {
    uint32_t block = 0;
    uint32_t interval = 0;  // of the block; 0: there was none
    uint32_t warpInterval = 0;
    uint16_t thread = 0;
    bool byWarp = false;    // by several lanes of the thread's warp
    bool byOthers = false;  // by several warps
    const void* code = nullptr;
  };
  struct Cell {
    uintptr_t place = 0;  // address / 2; 0: free
    uint32_t launch = 0;
    Access write, read;
  };

  std::vector<Cell> cells_;  // a hash table; cells of earlier launches are free
  size_t used_ = 0;
  uint32_t launch_ = 0;
  uint32_t block_ = 0;
  uint32_t interval_ = 0;
  std::array<uint32_t, 32> warpIntervals_{};
  std::string found_;

  Cell& cellOf(uintptr_t place);
  void grow();
  Access now(uint32_t thread, const void* code) const;
  bool isOrdered(const Access& earlier, const Access& later) const;
  void report(const char* what, const Access& earlier, const Access& later);
};

}  // namespace dp_moe::emulation
