#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "memory.h"

namespace dp_moe {

/// Bytes of a device's tensors.
struct MemoryUse {
  int64_t live;      // held by tensors
  int64_t peak;      // the most that was ever live
  int64_t pooled;    // free, kept for later tensors
  int64_t reserved;  // taken from the system: live and pooled, with rounding
};

/// A piece of device memory.
struct Block {
  void* address = nullptr;
  int64_t bytes = 0;     // asked for
  int64_t capacity = 0;  // what the pool handed out
};

/// Caches freed blocks by size class, so that a training step takes nothing from the system once the first steps have
/// passed. A device runs its ops in order; a block freed here may therefore be handed out at once: whoever gets it
/// enqueues later than everyone who used it before. Used from one thread.
class StoragePool {
 public:
  /// `limit` bytes at most are taken from the system.
  StoragePool(Memory& memory, int64_t limit);
  ~StoragePool();
  StoragePool(const StoragePool&) = delete;
  StoragePool& operator=(const StoragePool&) = delete;

  /// True when a block of that size can be had without giving pooled blocks back to the system.
  bool has(int64_t bytes) const;
  /// Throws OUT_OF_MEMORY.
  Block allocate(int64_t bytes);
  void release(const Block& block);

  /// Gives the pooled blocks back to the system. Only while the stream is idle: queued ops may still use them.
  void trim();

  MemoryUse use() const { return {live_, peak_, pooled_, reserved_}; }

 private:
  Memory& memory_;
  int64_t limit_;
  int64_t live_ = 0;
  int64_t peak_ = 0;
  int64_t pooled_ = 0;
  int64_t reserved_ = 0;
  std::map<int64_t, std::vector<void*>> free_;  // by capacity

  std::map<int64_t, std::vector<void*>>::const_iterator findPooled(int64_t capacity) const;
};

}  // namespace dp_moe
