#include "device_heap.h"

#include <cstring>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace dp_moe::emulation {

namespace {

constexpr unsigned char kPoison = 0xff;  // NaN in every format

uint64_t addressOf(const std::unique_ptr<std::byte[]>& bytes) { return reinterpret_cast<uintptr_t>(bytes.get()); }

void setOpen([[maybe_unused]] const std::byte* bytes, [[maybe_unused]] size_t size, [[maybe_unused]] bool open) {
#if defined(__SANITIZE_ADDRESS__)
  if (open) {
    ASAN_UNPOISON_MEMORY_REGION(bytes, size);
  } else {
    ASAN_POISON_MEMORY_REGION(bytes, size);
  }
#endif
}

}  // namespace

uint64_t DeviceHeap::allocate(size_t bytes, size_t limit) {
  if (bytes > limit || used_ > limit - bytes) return 0;
  auto memory = std::make_unique<std::byte[]>(bytes);
  std::memset(memory.get(), kPoison, bytes);
  setOpen(memory.get(), bytes, false);
  const uint64_t address = addressOf(memory);
  blocks_.emplace(address, Block{std::move(memory), bytes, false});
  used_ += bytes;
  return address;
}

bool DeviceHeap::retire(uint64_t address) {
  const auto entry = blocks_.find(address);
  if (entry == blocks_.end() || entry->second.retired) return false;
  return entry->second.retired = true;
}

void DeviceHeap::release(uint64_t address) {
  const auto entry = blocks_.find(address);
  setOpen(entry->second.bytes.get(), entry->second.size, true);
  std::memset(entry->second.bytes.get(), kPoison, entry->second.size);
  used_ -= entry->second.size;
  blocks_.erase(entry);
}

void* DeviceHeap::pin(size_t bytes) {
  auto memory = std::make_unique<std::byte[]>(bytes);
  void* address = memory.get();
  pinned_.emplace(reinterpret_cast<uintptr_t>(address), Block{std::move(memory), bytes, false});
  return address;
}

bool DeviceHeap::unpin(void* address) { return pinned_.erase(reinterpret_cast<uintptr_t>(address)) == 1; }

bool DeviceHeap::within(const std::map<uint64_t, Block>& blocks, uint64_t address, size_t bytes) {
  auto entry = blocks.upper_bound(address);
  if (entry == blocks.begin()) return false;
  --entry;
  const uint64_t offset = address - entry->first;
  return !entry->second.retired && offset <= entry->second.size && bytes <= entry->second.size - offset;
}

bool DeviceHeap::holds(uint64_t address, size_t bytes) const { return within(blocks_, address, bytes); }

bool DeviceHeap::isPinned(const void* address, size_t bytes) const {
  return within(pinned_, reinterpret_cast<uintptr_t>(address), bytes);
}

void DeviceHeap::open() const {
  for (const auto& [address, block] : blocks_) setOpen(block.bytes.get(), block.size, true);
}

void DeviceHeap::close() const {
  for (const auto& [address, block] : blocks_) setOpen(block.bytes.get(), block.size, false);
}

}  // namespace dp_moe::emulation
