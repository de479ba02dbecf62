#include <bit>
#include <span>

#include "executor.h"

// Barriers and what the lanes of a warp do together. The last one to arrive does the work for all.

namespace dp_moe::emulation {

namespace {

bool samePlace(const Where& a, const Where& b) { return a.line() == b.line() && a.column() == b.column(); }

}  // namespace

void Executor::meetWarp(uint32_t mask, Resolve resolve, void* operands, const char* what, Where where) {
  Fiber& fiber = current();
  const uint32_t warp = running.thread.x / 32;
  const uint32_t own = 1u << running.thread.x % 32;
  if ((mask & own) == 0) throw Fault(placeOf(what, where) + ": the mask lacks the lane itself");
  fiber.what = what;
  fiber.where = where;
  fiber.mask = mask;
  fiber.operands = operands;
  uint32_t& waiting = waiting_[warp];
  waiting |= own;
  if ((waiting & mask) != mask) {
    leaveFiber(fiber);
    return;
  }
  void* lanes[32] = {};
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const auto lane = static_cast<uint32_t>(std::countr_zero(left));
    const Fiber& other = fibers_[warp * 32 + lane];
    if (other.mask != mask || other.what != what || !samePlace(other.where, where)) {
      throw Fault("lanes of a warp meet at different places: " + whoWaits());
    }
    lanes[lane] = other.operands;
  }
  try {
    if (resolve != nullptr) resolve(lanes, mask);
  } catch (const Fault& fault) {
    throw Fault(placeOf(what, where) + ": " + fault.what());
  }
  // Only __syncwarp orders memory; a shuffle carries values.
  if (resolve == nullptr && mask == kFullMask) races_.passWarpBarrier(warp);
  waiting &= ~mask;
  schedule_.makeReady(warp, mask & ~own);
}

void Executor::meetBlock(const char* what, Where where) {
  Fiber& fiber = current();
  fiber.what = what;
  fiber.where = where;
  if (++arrived_ < running.blockSize.x) {
    leaveFiber(fiber);
    return;
  }
  for (uint32_t thread = 0; thread < running.blockSize.x; ++thread) {
    if (!samePlace(fibers_[thread].where, where)) {
      throw Fault("threads of a block meet at different barriers: " + whoWaits());
    }
  }
  arrived_ = 0;
  races_.passBlockBarrier();
  for (uint32_t warp = 0; warp < running.blockSize.x / 32; ++warp) schedule_.makeReady(warp, kFullMask);
  leaveFiber(fiber);
}

// ---------------------------------------------------------------- what kernels call

void meetWarp(uint32_t mask, Resolve resolve, void* operands, const char* what, Where where) {
  active->meetWarp(mask, resolve, operands, what, where);
}
void meetBlock(const char* what, Where where) { active->meetBlock(what, where); }
void* sharedMemory(const void* key, size_t bytes) { return active->sharedMemory(key, bytes); }
void* dynamicSharedMemory() { return active->dynamicSharedMemory(); }
void copyAsync(void* shared, const void* global, int validBytes, Where where) {
  active->copyAsync(shared, global, validBytes, where, __builtin_return_address(0));
}
void closeAsyncGroup() { active->closeAsyncGroup(); }
void waitForAsync(int newest) { active->waitForAsync(newest); }

uint32_t vote(uint32_t mask, bool yes, const char* what, Where where) {
  VoteOperands operands{yes, 0};
  const auto resolve = [](void* const lanes[32], uint32_t present) {
    uint32_t votes = 0;
    for (uint32_t l = 0; l < 32; ++l) {
      if ((present >> l & 1) != 0 && static_cast<VoteOperands*>(lanes[l])->yes) votes |= 1u << l;
    }
    for (void* lane : std::span(lanes, 32)) {
      if (lane != nullptr) static_cast<VoteOperands*>(lane)->votes = votes;
    }
  };
  active->meetWarp(mask, resolve, &operands, what, where);
  return operands.votes;
}

}  // namespace dp_moe::emulation
