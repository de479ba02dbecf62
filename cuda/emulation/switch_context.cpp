#include "switch_context.h"

#include <cstdint>
#include <cstring>

// The registers that a call keeps are pushed on the stack that is left and popped from the one that is entered;
// swapcontext does the same but asks the system about signals each time.

#if defined(__x86_64__)

asm(R"(
.text
.globl dpMoeSwitchContext
.hidden dpMoeSwitchContext
.type dpMoeSwitchContext, @function
dpMoeSwitchContext:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dpMoeSwitchContext, . - dpMoeSwitchContext
)");

namespace dp_moe::emulation {

void* prepareContext(void* stackTop, void (*entry)()) {
  // From the top: an end for stack traces, the return address, six registers.
  auto* top = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(stackTop) & ~uintptr_t{15});
  top[-1] = 0;
  top[-2] = reinterpret_cast<uint64_t>(entry);
  std::memset(top - 8, 0, 6 * sizeof(uint64_t));
  return top - 8;
}

}  // namespace dp_moe::emulation

#elif defined(__aarch64__)

asm(R"(
.text
.globl dpMoeSwitchContext
.hidden dpMoeSwitchContext
.type dpMoeSwitchContext, %function
dpMoeSwitchContext:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size dpMoeSwitchContext, . - dpMoeSwitchContext
)");

namespace dp_moe::emulation {

void* prepareContext(void* stackTop, void (*entry)()) {
  auto* saved = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(stackTop) & ~uintptr_t{15}) - 20;
  std::memset(saved, 0, 20 * sizeof(uint64_t));
  saved[11] = reinterpret_cast<uint64_t>(entry);  // x30
  return saved;
}

}  // namespace dp_moe::emulation

#else
#error "The emulated device knows the stacks of x86-64 and aarch64 only"
#endif
