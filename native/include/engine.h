#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "device.h"
#include "dtype.h"

namespace dp_moe {

/// Names a tensor. 0 names none; a freed handle's number is not given out again.
using Handle = int64_t;

/// A live tensor's memory.
struct TensorView {
  Device* device;
  DType dtype;
  int64_t count;  // elements
  void* data;
};

/// The devices and tensors of one JavaScript environment (or one program). Used from one thread.
class Engine {
 public:
  Engine() = default;
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  int openDevice(const std::string& name, const DeviceOptions& options);
  void closeDevice(int id);
  void closeAll();
  Device& device(int id);

  /// Contents are undefined until written.
  Handle allocate(int deviceId, DType dtype, int64_t count);
  /// Another tensor over `count` elements of an existing one, from `offset` on; the memory lives as long as either.
  Handle alias(Handle handle, int64_t offset, int64_t count);
  void free(Handle handle);
  /// Throws DISPOSED for a handle that was freed.
  TensorView view(Handle handle) const;

  /// Bytes of all devices together.
  MemoryUse memoryUse() const;

 private:
  struct Shared {  // one allocation, counted by the tensors over it
    Device* device;
    Block block;
    int tensors;
  };
  struct Slot {
    Shared* shared = nullptr;  // null: free
    uint32_t generation = 0;
    DType dtype = DType::float32;
    int64_t count = 0;
    void* data = nullptr;
  };

  std::vector<std::unique_ptr<Device>> devices_;  // by id; null once closed
  std::vector<Slot> slots_;
  std::vector<uint32_t> freeSlots_;

  /// Makes sure that makeHandle finds a free slot, before anything is allocated for it.
  void reserveSlot();
  Handle makeHandle(Shared* shared, DType dtype, int64_t count, void* data);
  uint32_t slotOf(Handle handle) const;
  void freeSlot(uint32_t index);
};

}  // namespace dp_moe
