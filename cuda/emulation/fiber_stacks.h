#pragma once

#include <cstddef>
#include <vector>

namespace dp_moe::emulation {

/// Stacks of fibers, kept for the next block; each ends at a page that nobody may touch.
class FiberStacks {
 public:
  static constexpr size_t kBytes = size_t{128} << 10;

  FiberStacks() = default;
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;
  ~FiberStacks();

  void reserve(size_t count);
  std::byte* bottom(size_t index) const { return bottoms_[index]; }
  /// Neighbours start at other offsets in their pages, or all fibers would share a few sets of the cache.
  void* top(size_t index) const { return bottoms_[index] + kBytes - index % 28 * 576; }

 private:
  std::vector<std::byte*> bottoms_;
};

}  // namespace dp_moe::emulation
