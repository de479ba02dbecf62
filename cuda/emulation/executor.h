#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/kernel.h"
#include "fiber_stacks.h"
#include "races.h"
#include "schedule.h"

namespace dp_moe::emulation {

struct Kernel {
  const char* name;
  void (*body)(const void*);
  size_t parameterBytes;
  uint32_t maxThreads;
};

std::string placeOf(const char* what, const Where& where);

/// The kernel of this name, or null.
const Kernel* findKernel(const std::string& name);

/// What the smallest of the devices that kernels are built for has (compute capability 8.6, 8.9 and 12.0), in bytes a
/// block: all of it, and that part that is static.
constexpr size_t kMaxSharedMemory = 99 * 1024;
constexpr size_t kMaxStaticSharedMemory = 48 * 1024;

struct Grid {
  uint32_t x = 1, y = 1;
};

/// Runs kernels on the CPU, block after block; the threads of a block are fibers. One executor per system thread.
///
/// Which blocks, warps and lanes run when follows from the seed. A barrier counts arrivals; when nothing can run, the
/// launch fails with a list of who waits where. Shared memory is NaN at the start of a block, and what copyAsync16
/// brings is NaN until its group has been waited for.
class Executor {
 public:
  static Executor& ofThisThread();

  /// Throws Fault with what the kernel did wrong.
  void run(const Kernel& kernel, Grid grid, uint32_t threads, const void* parameters, size_t sharedBytes,
           uint64_t seed);

  // For the running kernel (emulation.h).
  void meetWarp(uint32_t mask, Resolve resolve, void* operands, const char* what, Where where);
  void meetBlock(const char* what, Where where);
  void* sharedMemory(const void* key, size_t bytes);
  void* dynamicSharedMemory() { return dynamic_.bytes.get(); }
  void copyAsync(void* shared, const void* global, int validBytes, Where where, const void* code);
  void closeAsyncGroup();
  void waitForAsync(int newest);
  /// Throws unless the 16 bytes are an aligned piece of the block's shared memory.
  void checkShared(const void* address, const char* what, Where where);

  // Of kernels that are compiled to tell (tsan_hooks.cpp).
  void noteRead(const void* address, size_t bytes, const void* code);
  void noteWrite(const void* address, size_t bytes, const void* code);

 private:
  struct AsyncCopy {
    void* to;
    int64_t group;
    std::array<std::byte, 16> bytes;
    const void* code;  // that asked for it
  };
  struct Fiber {
    void* stackPointer;
    void* fakeStack;  // the sanitizer's
    bool done;
    const char* what;  // where it waits
    Where where;
    uint32_t mask;
    void* operands;
    int64_t asyncGroup;
    std::vector<AsyncCopy> copies;
  };
  struct SharedPiece {
    const void* key;
    size_t size;
    std::unique_ptr<std::byte[]> bytes;
    bool used;                              // by the running block
    std::vector<RaceDetector::Cell> cells;  // where races are watched
  };

  FiberStacks stacks_;
  std::vector<Fiber> fibers_;
  std::vector<uint32_t> waiting_;  // per warp: the lanes that wait at a warp's meeting
  std::vector<SharedPiece> shared_;
  SharedPiece dynamic_{};
  Schedule schedule_;
  RaceDetector races_;
  const Kernel* kernel_ = nullptr;
  const void* parameters_ = nullptr;
  uint32_t arrived_ = 0;  // at the block's barrier
  uint32_t alive_ = 0;
  std::string failure_;

  void* home_ = nullptr;  // where run was called
  void* homeFakeStack_ = nullptr;
  const void* homeBottom_ = nullptr;
  size_t homeSize_ = 0;
  bool fromHome_ = false;

  void runBlock();
  void switchTo(Fiber* from, Fiber* to);
  /// Runs the next thread; returns when this one's turn has come again.
  void leaveFiber(Fiber& fiber);
  static void enterFiber();
  void fiberMain();
  /// The piece of the block's shared memory that holds the bytes, or null.
  SharedPiece* pieceOf(const void* address, size_t bytes);
  /// Whether other threads can see the address: not what is on the stacks, nor the thread's own place.
  bool isShared(const void* address) const {
    const auto* byte = static_cast<const char*>(address);
    const auto* own = reinterpret_cast<const char*>(&running);
    return !stacks_.hold(address) && !(byte >= own && byte < own + sizeof running);
  }
  Fiber& current() { return fibers_[running.thread.x]; }
  std::string whoWaits() const;
  [[noreturn]] void fail(const std::string& text) const;
};

/// The executor whose kernel this thread runs.
extern constinit thread_local Executor* active;

}  // namespace dp_moe::emulation
