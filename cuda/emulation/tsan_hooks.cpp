#include <cstddef>

#include "executor.h"

// What the compiler puts in front of every access to memory with -fsanitize=thread: here it asks the race detector, and
// ThreadSanitizer's own library is not linked.

using dp_moe::emulation::active;

#define DP_MOE_READ(name, bytes) \
  extern "C" void name(void* address) { active->noteRead(address, bytes, __builtin_return_address(0)); }
#define DP_MOE_WRITE(name, bytes) \
  extern "C" void name(void* address) { active->noteWrite(address, bytes, __builtin_return_address(0)); }

DP_MOE_READ(__tsan_read1, 1)
DP_MOE_READ(__tsan_read2, 2)
DP_MOE_READ(__tsan_read4, 4)
DP_MOE_READ(__tsan_read8, 8)
DP_MOE_READ(__tsan_read16, 16)
DP_MOE_READ(__tsan_unaligned_read2, 2)
DP_MOE_READ(__tsan_unaligned_read4, 4)
DP_MOE_READ(__tsan_unaligned_read8, 8)
DP_MOE_READ(__tsan_unaligned_read16, 16)
DP_MOE_WRITE(__tsan_write1, 1)
DP_MOE_WRITE(__tsan_write2, 2)
DP_MOE_WRITE(__tsan_write4, 4)
DP_MOE_WRITE(__tsan_write8, 8)
DP_MOE_WRITE(__tsan_write16, 16)
DP_MOE_WRITE(__tsan_unaligned_write2, 2)
DP_MOE_WRITE(__tsan_unaligned_write4, 4)
DP_MOE_WRITE(__tsan_unaligned_write8, 8)
DP_MOE_WRITE(__tsan_unaligned_write16, 16)

extern "C" void __tsan_read_range(void* address, size_t bytes) {
  active->noteRead(address, bytes, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* address, size_t bytes) {
  active->noteWrite(address, bytes, __builtin_return_address(0));
}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_init() { dp_moe::emulation::RaceDetector::watches = true; }
