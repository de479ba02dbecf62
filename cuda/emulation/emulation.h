#pragma once

#include <math.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>

// The CPU side of kernels/kernel.h: what the device offers to a kernel, for threads that are fibers (executor.h).

namespace dp_moe::emulation {

using Where = std::source_location;

/// What a kernel did that a device forbids, or that is not modelled here.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Index {
  uint32_t x, y, z;
};

/// Where the thread that runs now is.
struct Running {
  Index thread, block, blockSize, gridSize;
};
extern constinit thread_local Running running;

inline int lane() { return static_cast<int>(running.thread.x % 32); }

/// Makes the kernel known under its name.
struct Registration {
  Registration(const char* name, void (*body)(const void*), size_t parameterBytes, uint32_t maxThreads);
};

/// Combines what the lanes brought; runs once, when the last of them has arrived. lanes[l] is null outside the mask.
using Resolve = void (*)(void* const lanes[32], uint32_t mask);

/// The running thread meets the lanes of `mask`; all must come to the same place with the same mask.
void meetWarp(uint32_t mask, Resolve resolve, void* operands, const char* what, Where where);
void meetBlock(const char* what, Where where);

/// Memory of the running block under this key (a static's address), full of NaN at first.
void* sharedMemory(const void* key, size_t bytes);
void* dynamicSharedMemory();

void copyAsync(void* shared, const void* global, int validBytes, Where where);
void closeAsyncGroup();
void waitForAsync(int newest);
void loadMatrices(uint32_t (&r)[4], const void* row, bool transposed, Where where);
void multiplyMatrices(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where);

template <class T>
struct ShuffleOperands {
  T value, result;
  int source;
};

template <class T>
void resolveShuffle(void* const lanes[32], uint32_t mask) {
  for (int l = 0; l < 32; ++l) {
    if ((mask >> l & 1) == 0) continue;
    auto& own = *static_cast<ShuffleOperands<T>*>(lanes[l]);
    if ((mask >> own.source & 1) == 0) {
      throw Fault("lane " + std::to_string(l) + " reads lane " + std::to_string(own.source) + ", which is not there");
    }
    own.result = static_cast<ShuffleOperands<T>*>(lanes[own.source])->value;
  }
}

template <class T>
T shuffle(uint32_t mask, T value, int source, const char* what, Where where) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles carry 32 or 64 bits");
  ShuffleOperands<T> operands{value, value, source};
  meetWarp(mask, resolveShuffle<T>, &operands, what, where);
  return operands.result;
}

inline int firstOf(int width) {
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0) throw Fault("the width of a shuffle is a power of 2");
  return lane() / width * width;
}

struct VoteOperands {
  bool yes;
  uint32_t votes;
};

uint32_t vote(uint32_t mask, bool yes, const char* what, Where where);

template <class T>
void checkAtomic() {
  static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "atomics are for 32- and 64-bit integers");
}

}  // namespace dp_moe::emulation

// ---------------------------------------------------------------- names of the device

#define DEVICE inline
#define KERNEL(name, Params) KERNEL_BOUNDS(name, Params, 1024, 1)
#define KERNEL_BOUNDS(name, Params, threadsPerBlock, blocksPerMultiprocessor)                                      \
  static void name##_body(const Params&);                                                                          \
  static const ::dp_moe::emulation::Registration name##_registration(                                              \
      #name, [](const void* parameters) { name##_body(*static_cast<const Params*>(parameters)); }, sizeof(Params), \
      threadsPerBlock);                                                                                            \
  static_assert(std::is_trivially_copyable_v<Params> && (blocksPerMultiprocessor) > 0);                            \
  static void name##_body([[maybe_unused]] const Params& p)
#define SHARED(T, name, count) \
  static char name##_key;      \
  T(&name)                     \
  [count] = *static_cast<T(*)[count]>(::dp_moe::emulation::sharedMemory(&name##_key, sizeof(T) * (count)))
#define DYNAMIC_SHARED(T, name) \
  [[maybe_unused]] T* const name = static_cast<T*>(::dp_moe::emulation::dynamicSharedMemory())

#define threadIdx (::dp_moe::emulation::running.thread)
#define blockIdx (::dp_moe::emulation::running.block)
#define blockDim (::dp_moe::emulation::running.blockSize)
#define gridDim (::dp_moe::emulation::running.gridSize)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

/// Of integers; fminf and fmaxf say what NaN does.
template <class T>
constexpr T min(T a, T b) {
  static_assert(std::is_integral_v<T>);
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  static_assert(std::is_integral_v<T>);
  return a < b ? b : a;
}

inline int __popc(uint32_t bits) { return std::popcount(bits); }
inline int __popcll(uint64_t bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<uint32_t>(bits)); }
inline int __ffs(int bits) { return bits == 0 ? 0 : std::countr_zero(static_cast<uint32_t>(bits)) + 1; }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
template <class T>
T __ldg(const T* address) {
  return *address;
}

inline void __threadfence() {}
inline void __syncthreads(dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  dp_moe::emulation::meetBlock("__syncthreads", where);
}
inline void __syncwarp(uint32_t mask = 0xffffffff,
                       dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  dp_moe::emulation::meetWarp(mask, nullptr, nullptr, "__syncwarp", where);
}

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  const int from = dp_moe::emulation::firstOf(width) + (source & (width - 1));
  return dp_moe::emulation::shuffle(mask, value, from, "__shfl_sync", where);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32,
                  dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  const int first = dp_moe::emulation::firstOf(width);
  const int from = dp_moe::emulation::lane() ^ bits;
  // A lane above the own group keeps its value; one below it can be read.
  const int source = from < first + width ? from : dp_moe::emulation::lane();
  return dp_moe::emulation::shuffle(mask, value, source, "__shfl_xor_sync", where);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned distance, int width = 32,
                 dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  const int first = dp_moe::emulation::firstOf(width);
  const int from = dp_moe::emulation::lane() - static_cast<int>(distance);
  return dp_moe::emulation::shuffle(mask, value, from >= first ? from : dp_moe::emulation::lane(), "__shfl_up_sync",
                                    where);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned distance, int width = 32,
                   dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  const int last = dp_moe::emulation::firstOf(width) + width - 1;
  const int from = dp_moe::emulation::lane() + static_cast<int>(distance);
  return dp_moe::emulation::shuffle(mask, value, from <= last ? from : dp_moe::emulation::lane(), "__shfl_down_sync",
                                    where);
}

inline uint32_t __ballot_sync(uint32_t mask, bool yes,
                              dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  return dp_moe::emulation::vote(mask, yes, "__ballot_sync", where);
}
inline int __any_sync(uint32_t mask, bool yes, dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  return dp_moe::emulation::vote(mask, yes, "__any_sync", where) != 0;
}
inline int __all_sync(uint32_t mask, bool yes, dp_moe::emulation::Where where = dp_moe::emulation::Where::current()) {
  return dp_moe::emulation::vote(mask, yes, "__all_sync", where) == mask;
}

// The order of atomics is nobody's concern: no race detector looks at them.
#define DP_MOE_UNWATCHED __attribute__((no_sanitize("thread")))

template <class T>
DP_MOE_UNWATCHED T atomicExch(T* address, std::type_identity_t<T> value) {
  dp_moe::emulation::checkAtomic<T>();
  const T old = *address;
  *address = value;
  return old;
}
template <class T>
DP_MOE_UNWATCHED T atomicAdd(T* address, std::type_identity_t<T> value) {
  using Unsigned = std::make_unsigned_t<T>;
  return atomicExch(address, static_cast<T>(static_cast<Unsigned>(*address) + static_cast<Unsigned>(value)));
}
template <class T>
DP_MOE_UNWATCHED T atomicMin(T* address, std::type_identity_t<T> value) {
  return atomicExch(address, value < *address ? value : *address);
}
template <class T>
DP_MOE_UNWATCHED T atomicMax(T* address, std::type_identity_t<T> value) {
  return atomicExch(address, value > *address ? value : *address);
}
template <class T>
DP_MOE_UNWATCHED T atomicOr(T* address, std::type_identity_t<T> value) {
  return atomicExch(address, static_cast<T>(*address | value));
}
template <class T>
DP_MOE_UNWATCHED T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return atomicExch(address, *address == expected ? value : *address);
}

namespace dp_moe {

inline void copyAsync16(void* shared, const void* global, int validBytes = 16,
                        emulation::Where where = emulation::Where::current()) {
  emulation::copyAsync(shared, global, validBytes, where);
}
inline void commitAsync() { emulation::closeAsyncGroup(); }
template <int newest>
void waitAsync() {
  emulation::waitForAsync(newest);
}
inline void loadMatrix4(uint32_t (&r)[4], const void* sharedRow, emulation::Where where = emulation::Where::current()) {
  emulation::loadMatrices(r, sharedRow, false, where);
}
inline void loadMatrix4Transposed(uint32_t (&r)[4], const void* sharedRow,
                                  emulation::Where where = emulation::Where::current()) {
  emulation::loadMatrices(r, sharedRow, true, where);
}
inline void multiplyAccumulate(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                               emulation::Where where = emulation::Where::current()) {
  emulation::multiplyMatrices(c, a, b, where);
}

}  // namespace dp_moe
