#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace dp_moe::emulation {

/// Finds two threads of a launch that use the same memory, one of them to write it, with nothing between that orders
/// them: a __syncthreads of their block, a __syncwarp of their warp; blocks are never ordered. Kernels tell it of their
/// accesses when they are compiled with -fsanitize=thread (tsan_hooks.cpp).
///
/// Of the shared memory of a block it keeps, per two bytes, the last write and who has read since the last barrier: a
/// race is found in whatever order the threads run. Of global memory it keeps the writes alone, as most of it is only
/// read: a read before a write that races with it is found when a schedule has them the other way round.
class RaceDetector {
 public:
  struct Access {
    uint32_t interval = 0;  // between two barriers of a block; 0: there was none
    uint32_t warpInterval = 0;
    uint16_t thread = 0;
    bool byWarp = false;    // by several lanes of the thread's warp
    bool byOthers = false;  // by several warps
    const void* code = nullptr;
  };
  /// Two bytes of shared memory.
  struct Cell {
    Access write, read;
  };
  static constexpr size_t kCellBytes = 2;

  /// Whether there are kernels that tell.
  static inline bool watches = false;
  /// Whether a launch fails for a race.
  static inline bool refuses = true;

  void startLaunch();
  void startBlock() { blockStart_ = ++interval_, warpIntervals_.fill(0); }
  void passBlockBarrier() { ++interval_, warpIntervals_.fill(0); }
  void passWarpBarrier(uint32_t warp) { ++warpIntervals_[warp]; }

  void readShared(Cell* first, size_t count, uint32_t thread, const void* code);
  void writeShared(Cell* first, size_t count, uint32_t thread, const void* code);
  void readGlobal(const void* address, size_t bytes, uint32_t thread, const void* code);
  void writeGlobal(const void* address, size_t bytes, uint32_t thread, const void* code);

  /// What was found first; empty when nothing was.
  const std::string& found() const { return found_; }

 private:
  /// A global write. Those of earlier launches are free places of the table.
  struct Written {
    uintptr_t place = 0;  // address / kCellBytes
    uint32_t launch = 0;
    Access write;
  };
  static constexpr size_t kPages = 1 << 16;

  std::vector<Written> writes_;  // a hash table
  std::bitset<kPages> pages_;    // that may have been written, by a hash of their number
  size_t used_ = 0;
  uint32_t launch_ = 0;
  uint32_t blockStart_ = 0;  // the first interval of the running block
  uint32_t interval_ = 0;
  std::array<uint32_t, 32> warpIntervals_{};
  std::string found_;

  Written& find(uintptr_t place);
  void grow();
  Access now(uint32_t thread, const void* code) const {
    return {interval_, warpIntervals_[thread / 32], static_cast<uint16_t>(thread), false, false, code};
  }
  bool isOfThisBlock(const Access& access) const { return access.interval >= blockStart_; }
  bool isOrdered(const Access& earlier, const Access& later) const;
  void report(const char* what, const Access& earlier, const Access& later);
};

}  // namespace dp_moe::emulation
