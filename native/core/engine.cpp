#include "engine.h"

#include <limits>
#include <string>

#include "error.h"

namespace dp_moe {

namespace {

// A handle is generation * 2^24 + slot + 1; both parts together stay within the 53 bits of a JavaScript number.
constexpr int kSlotBits = 24;
constexpr uint32_t kMaxSlots = (1u << kSlotBits) - 1;
constexpr uint32_t kMaxGeneration = (1u << 28) - 1;

}  // namespace

Engine::~Engine() { closeAll(); }

void Engine::closeAll() {
  for (size_t id = 0; id < devices_.size(); ++id) {
    if (devices_[id]) closeDevice(static_cast<int>(id));
  }
}

int Engine::openDevice(const std::string& name, const DeviceOptions& options) {
  devices_.push_back(Device::open(name, options));
  return static_cast<int>(devices_.size()) - 1;
}

Device& Engine::device(int id) {
  if (id < 0 || id >= static_cast<int>(devices_.size()) || !devices_[static_cast<size_t>(id)]) {
    throw Error("DISPOSED", "The device was closed");
  }
  return *devices_[static_cast<size_t>(id)];
}

void Engine::closeDevice(int id) {
  Device& closing = device(id);
  closing.stream().close();
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    if (slots_[index].shared != nullptr && slots_[index].shared->device == &closing) freeSlot(index);
  }
  devices_[static_cast<size_t>(id)].reset();
}

Handle Engine::allocate(int deviceId, DType dtype, int64_t count) {
  Device& owner = device(deviceId);
  reserveSlot();
  if (count < 0 || count > std::numeric_limits<int64_t>::max() / 16) {
    throw Error("SHAPE_MISMATCH", "Expected a number of elements >= 0, got " + std::to_string(count));
  }
  if (!owner.stores(dtype)) {
    throw Error("BACKEND_UNAVAILABLE", std::string("This device has no ") + nameOf(dtype) + " tensors; use float32");
  }
  auto shared = std::make_unique<Shared>(Shared{&owner, owner.allocate(count * bytesPerElement(dtype)), 0});
  void* data = shared->block.address;
  return makeHandle(shared.release(), dtype, count, data);
}

Handle Engine::alias(Handle handle, int64_t offset, int64_t count) {
  reserveSlot();
  const Slot slot = slots_[slotOf(handle)];
  if (offset < 0 || count < 0 || offset > slot.count || count > slot.count - offset) {
    throw Error("SHAPE_MISMATCH", "Expected a part of " + std::to_string(slot.count) + " elements, got " +
                                      std::to_string(count) + " from " + std::to_string(offset) + " on");
  }
  return makeHandle(slot.shared, slot.dtype, count,
                    static_cast<char*>(slot.data) + offset * bytesPerElement(slot.dtype));
}

void Engine::reserveSlot() {
  if (!freeSlots_.empty()) return;
  if (slots_.size() >= kMaxSlots) throw Error("OUT_OF_MEMORY", "Too many tensors are alive; dispose some");
  freeSlots_.push_back(static_cast<uint32_t>(slots_.size()));
  slots_.emplace_back();
}

Handle Engine::makeHandle(Shared* shared, DType dtype, int64_t count, void* data) {
  const uint32_t index = freeSlots_.back();
  freeSlots_.pop_back();
  Slot& slot = slots_[index];
  slot.shared = shared;
  slot.dtype = dtype;
  slot.count = count;
  slot.data = data;
  ++shared->tensors;
  return (static_cast<Handle>(slot.generation) << kSlotBits) + index + 1;
}

uint32_t Engine::slotOf(Handle handle) const {
  const int64_t index = (handle & kMaxSlots) - 1;
  const int64_t generation = handle >> kSlotBits;
  if (handle <= 0 || index < 0 || index >= static_cast<int64_t>(slots_.size()) ||
      slots_[static_cast<size_t>(index)].shared == nullptr ||
      slots_[static_cast<size_t>(index)].generation != generation) {
    throw Error("DISPOSED", "The tensor was used after it was disposed");
  }
  return static_cast<uint32_t>(index);
}

void Engine::free(Handle handle) { freeSlot(slotOf(handle)); }

void Engine::freeSlot(uint32_t index) {
  Slot& slot = slots_[index];
  Shared* shared = slot.shared;
  slot.shared = nullptr;
  // A slot whose generations are used up is retired, so that no handle is ever given out twice.
  if (++slot.generation <= kMaxGeneration) freeSlots_.push_back(index);
  if (--shared->tensors == 0) {
    shared->device->release(shared->block);
    delete shared;
  }
}

TensorView Engine::view(Handle handle) const {
  const Slot& slot = slots_[slotOf(handle)];
  return {slot.shared->device, slot.dtype, slot.count, slot.data};
}

MemoryUse Engine::memoryUse() const {
  MemoryUse sum{};
  for (const auto& device : devices_) {
    if (!device) continue;
    const MemoryUse use = device->memoryUse();
    sum.live += use.live;
    sum.peak += use.peak;
    sum.pooled += use.pooled;
    sum.reserved += use.reserved;
  }
  return sum;
}

}  // namespace dp_moe
