#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

namespace dp_moe::emulation {

/// The memory of the emulated device and the pinned memory of the host. Each allocation is a heap block of exactly its
/// size, so that AddressSanitizer sees a kernel that leaves it, and is full of NaN at first. While nothing runs on the
/// device, its memory is closed to the host (where AddressSanitizer is on).
class DeviceHeap {
 public:
  /// 0 when the device has no more than `limit`.
  uint64_t allocate(size_t bytes, size_t limit);
  /// From now on no new work may use it; the memory goes with `release`, when the stream has come that far.
  bool retire(uint64_t address);
  void release(uint64_t address);

  void* pin(size_t bytes);
  bool unpin(void* address);

  /// Whether the bytes are part of one allocation that new work may use.
  bool holds(uint64_t address, size_t bytes) const;
  bool isPinned(const void* address, size_t bytes) const;
  size_t used() const { return used_; }
  size_t allocations() const { return blocks_.size(); }

  void open() const;
  void close() const;

 private:
  struct Block {
    std::unique_ptr<std::byte[]> bytes;
    size_t size;
    bool retired;
  };
  std::map<uint64_t, Block> blocks_;  // by address
  std::map<uint64_t, Block> pinned_;
  size_t used_ = 0;

  static bool within(const std::map<uint64_t, Block>& blocks, uint64_t address, size_t bytes);
};

}  // namespace dp_moe::emulation
