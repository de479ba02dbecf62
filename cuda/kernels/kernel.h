#pragma once

#include <cstdint>

#include "bfloat16.h"

// What a kernel file may use besides C++. Two compilers read it: nvcc for the device, and g++ for the emulated device
// of the tests (cuda/emulation), which gives every name below a second body and throws on what it does not model.
//
//   KERNEL(name, Params) { ... p.field ... }         a kernel; its parameters are the plain struct `p`
//   KERNEL_BOUNDS(name, Params, threads, blocks)     the same, for at most `threads` in a block and `blocks` at once
//   DEVICE                                           in front of a function of the device
//   SHARED(T, name, count), DYNAMIC_SHARED(T, name)  memory of a block; the latter as large as the launch says
//   threadIdx.x, blockIdx.x/y, blockDim.x, gridDim.x/y; blocks are whole warps
//   __syncthreads, __syncwarp, __shfl_sync and its kin, __ballot_sync, __any_sync, __all_sync
//   atomicAdd, atomicCAS, atomicMin, atomicMax, atomicExch, atomicOr on integers: sums of floats need an order
//   copyAsync16, commitAsync, waitAsync, loadMatrix4, loadMatrix4Transposed, multiplyAccumulate, reportError

namespace dp_moe {

constexpr uint32_t kFullMask = 0xffffffff;
constexpr int kWarp = 32;

}  // namespace dp_moe

#ifdef __CUDACC__

#define DEVICE __device__ inline
#define KERNEL(name, Params) extern "C" __global__ void name(const __grid_constant__ Params p)
#define KERNEL_BOUNDS(name, Params, threadsPerBlock, blocksPerMultiprocessor)            \
  extern "C" __global__ void __launch_bounds__(threadsPerBlock, blocksPerMultiprocessor) \
      name(const __grid_constant__ Params p)
#define SHARED(T, name, count) __shared__ __align__(16) T name[count]
#define DYNAMIC_SHARED(T, name)                                       \
  extern __shared__ __align__(16) unsigned char dpMoeDynamicShared[]; \
  [[maybe_unused]] T* const name = reinterpret_cast<T*>(dpMoeDynamicShared)

namespace dp_moe {

/// Copies 16 bytes from global to shared memory in the background: `validBytes` of them, and zeros for the rest. Both
/// addresses are multiples of 16. The data is there for this thread after the waitAsync of its group, for others after
/// a barrier behind that.
DEVICE void copyAsync16(void* shared, const void* global, int validBytes = 16) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(validBytes) : "memory");
}

/// Closes a group: the copies since the last one.
DEVICE void commitAsync() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most the `newest` latest groups of this thread are under way.
template <int newest>
DEVICE void waitAsync() {
  asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory");
}

/// Four 8x8 matrices of 16-bit elements from shared memory; lane l gives the address of row l % 8 of matrix l / 8.
/// r[i] holds elements 2 (l % 4) and + 1 of row l / 4 of matrix i.
DEVICE void loadMatrix4(uint32_t (&r)[4], const void* sharedRow) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(sharedRow));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

/// The same with each matrix transposed: r[i] holds column l / 4 of rows 2 (l % 4) and + 1.
DEVICE void loadMatrix4Transposed(uint32_t (&r)[4], const void* sharedRow) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(sharedRow));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

/// c += a b for one warp: a 16x16, b 16x8 in bfloat16, c 16x8 in float32. With g = lane / 4 and t = 2 (lane % 4):
/// a[0] is (row g, k t..t+1), a[1] (g + 8, t), a[2] (g, t + 8), a[3] (g + 8, t + 8); b[0] is (k t..t+1, column g),
/// b[1] (t + 8, g); c[0..1] is (row g, columns t..t+1), c[2..3] (g + 8, t). The lower half of a word has the lower
/// index.
DEVICE void multiplyAccumulate(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace dp_moe

#else
#include "../emulation/emulation.h"
#endif

namespace dp_moe {

/// Tells the host what went wrong (status[0] = code, status[1] = value); the first error of a launch wins.
DEVICE void reportError(int32_t* status, int32_t code, int32_t value) {
  if (atomicCAS(&status[0], 0, code) == 0) status[1] = value;
}

}  // namespace dp_moe
