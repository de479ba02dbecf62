#pragma once

#include <cstddef>

namespace dp_moe::emulation {

/// Stacks of fibers, kept for the next block; each ends at a page that nobody may touch.
class FiberStacks {
 public:
  static constexpr size_t kBytes = size_t{128} << 10;
  static constexpr size_t kCount = 1024;

  FiberStacks();
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;
  ~FiberStacks();

  std::byte* bottom(size_t index) const { return memory_ + index * kStride + kGuardBytes; }
  /// Neighbours start at other offsets in their pages, or all fibers would share a few sets of the cache.
  void* top(size_t index) const { return bottom(index) + kBytes - index % 28 * 576; }
  /// Whether the address is on one of the stacks.
  bool hold(const void* address) const {
    const auto* byte = static_cast<const std::byte*>(address);
    return byte >= memory_ && byte < memory_ + kCount * kStride;
  }

 private:
  static constexpr size_t kGuardBytes = 4096;
  static constexpr size_t kStride = kGuardBytes + kBytes;
  std::byte* memory_;
};

}  // namespace dp_moe::emulation
