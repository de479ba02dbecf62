#include "fiber_stacks.h"

#include <sys/mman.h>

#include <new>

namespace dp_moe::emulation {

namespace {
constexpr size_t kGuardBytes = 4096;
}

void FiberStacks::reserve(size_t count) {
  while (bottoms_.size() < count) {
    void* memory =
        mmap(nullptr, kGuardBytes + kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
    bottoms_.push_back(static_cast<std::byte*>(memory) + kGuardBytes);
  }
}

FiberStacks::~FiberStacks() {
  for (std::byte* bottom : bottoms_) munmap(bottom - kGuardBytes, kGuardBytes + kBytes);
}

}  // namespace dp_moe::emulation
