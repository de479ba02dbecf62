#include "device_memory.h"

#include <utility>

namespace dp_moe::cuda {

DeviceMemory::DeviceMemory(Context& context, int64_t bytes) : context_(&context), bytes_(bytes) {
  context.enter();
  const CUresult result = context.api().cuMemAllocAsync(&address_, static_cast<size_t>(bytes), context.stream());
  if (result != CUDA_SUCCESS) context.fail(result, "taking " + std::to_string(bytes) + " bytes of device memory");
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (address_ != 0 && context_->tryEnter()) context_->api().cuMemFreeAsync(address_, context_->stream());
}

void* DeviceMemory::address() const { return reinterpret_cast<void*>(static_cast<uintptr_t>(address_)); }

PinnedMemory::PinnedMemory(Context& context, int64_t bytes) : context_(context), bytes_(bytes) {
  context_.enter();
  const CUresult result = context_.api().cuMemHostAlloc(&address_, static_cast<size_t>(bytes), 0);
  if (result != CUDA_SUCCESS) context_.fail(result, "pinning " + std::to_string(bytes) + " bytes of host memory");
}

PinnedMemory::~PinnedMemory() {
  if (context_.tryEnter()) context_.api().cuMemFreeHost(address_);
}

Event::Event(Context& context) : context_(context) {
  context_.enter();
  context_.check(context_.api().cuEventCreate(&event_, CU_EVENT_DISABLE_TIMING), "making an event");
}

Event::~Event() {
  if (context_.tryEnter()) context_.api().cuEventDestroy(event_);
}

void Event::record() { context_.check(context_.api().cuEventRecord(event_, context_.stream()), "recording an event"); }

void Event::wait() { context_.check(context_.api().cuEventSynchronize(event_), "running an op"); }

}  // namespace dp_moe::cuda
