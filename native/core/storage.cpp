#include "storage.h"

#include <algorithm>
#include <bit>
#include <string>

#include "error.h"

namespace dp_moe {

namespace {

constexpr int64_t kSmallest = 64;

/// Four size classes per doubling: at most a quarter is lost to rounding, and the batches of a run, whose sizes vary
/// by Poisson sampling, share a few classes.
int64_t sizeClass(int64_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  const int64_t step =
      std::max<int64_t>(kSmallest, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 4);
  return (bytes + step - 1) / step * step;
}

/// A pooled block may be this much larger than asked for.
int64_t largestUseful(int64_t capacity) { return capacity + capacity / 2; }

std::string mebibytes(int64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

StoragePool::StoragePool(Memory& memory, int64_t limit) : memory_(memory), limit_(limit) {}

StoragePool::~StoragePool() { trim(); }

std::map<int64_t, std::vector<void*>>::const_iterator StoragePool::findPooled(int64_t capacity) const {
  const auto entry = free_.lower_bound(capacity);
  return entry != free_.end() && entry->first <= largestUseful(capacity) ? entry : free_.end();
}

bool StoragePool::has(int64_t bytes) const {
  const int64_t capacity = sizeClass(bytes);
  return findPooled(capacity) != free_.end() || reserved_ + capacity <= limit_;
}

Block StoragePool::allocate(int64_t bytes) {
  int64_t capacity = sizeClass(bytes);
  void* address = nullptr;
  if (const auto found = findPooled(capacity); found != free_.end()) {
    const auto entry = free_.find(found->first);
    capacity = entry->first;
    address = entry->second.back();
    entry->second.pop_back();
    if (entry->second.empty()) free_.erase(entry);
    pooled_ -= capacity;
  } else {
    const bool allowed = reserved_ + capacity <= limit_;
    if (allowed) address = memory_.reserve(capacity);
    if (address == nullptr) {
      throw Error("OUT_OF_MEMORY", "Expected " + mebibytes(bytes) + " for a tensor, but " +
                                       (allowed ? "the system has no more, and " : "") + "tensors hold " +
                                       mebibytes(live_) + " of " + mebibytes(limit_) +
                                       "; use a smaller memory budget or batch, or dispose tensors");
    }
    reserved_ += capacity;
  }
  live_ += capacity;
  peak_ = std::max(peak_, live_);
  return {address, bytes, capacity};
}

void StoragePool::release(const Block& block) {
  free_[block.capacity].push_back(block.address);
  live_ -= block.capacity;
  pooled_ += block.capacity;
}

void StoragePool::trim() {
  for (const auto& [capacity, addresses] : free_) {
    for (void* address : addresses) memory_.release(address, capacity);
  }
  free_.clear();
  reserved_ -= pooled_;
  pooled_ = 0;
}

}  // namespace dp_moe
