#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dp_moe {

namespace {

constexpr int64_t kCacheLine = 64;
constexpr int64_t kHugePage = 2 << 20;
// Blocks of this size gain from huge pages (fewer TLB misses, fewer page faults) more than rounding up costs.
constexpr int64_t kHugeBlock = 2 * kHugePage;

}  // namespace

void* HostMemory::reserve(int64_t bytes) noexcept {
  const int64_t alignment = bytes >= kHugeBlock ? kHugePage : kCacheLine;
  const int64_t rounded = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  void* address = nullptr;
  if (posix_memalign(&address, static_cast<size_t>(alignment), static_cast<size_t>(rounded)) != 0) return nullptr;
#if defined(__linux__)
  if (bytes >= kHugeBlock) madvise(address, static_cast<size_t>(rounded), MADV_HUGEPAGE);
#endif
  return address;
}

void HostMemory::release(void* address, int64_t) noexcept { std::free(address); }

void HostMemory::upload(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void HostMemory::download(void* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

void HostMemory::copy(void* to, const void* from, int64_t bytes) { std::memmove(to, from, static_cast<size_t>(bytes)); }

void HostMemory::fill(void* to, DType dtype, int64_t count, double value) {
  switch (dtype) {
    case DType::float32:
      std::fill_n(static_cast<float*>(to), count, static_cast<float>(value));
      return;
    case DType::float64:
      std::fill_n(static_cast<double*>(to), count, value);
      return;
    case DType::int32:
      std::fill_n(static_cast<int32_t*>(to), count, static_cast<int32_t>(value));
      return;
    case DType::bfloat16:
      std::fill_n(static_cast<bfloat16*>(to), count, toBfloat16(static_cast<float>(value)));
      return;
  }
}

}  // namespace dp_moe
