#include "fiber_stacks.h"

#include <sys/mman.h>

#include <new>

namespace dp_moe::emulation {

FiberStacks::FiberStacks() {
  // Pages come when they are used.
  void* memory =
      mmap(nullptr, kCount * kStride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  for (size_t index = 0; index < kCount; ++index) mprotect(memory_ + index * kStride, kGuardBytes, PROT_NONE);
}

FiberStacks::~FiberStacks() { munmap(memory_, kCount * kStride); }

}  // namespace dp_moe::emulation
