#include "executor.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>

#include "switch_context.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace dp_moe::emulation {

namespace {

constexpr unsigned char kPoison = 0xff;  // NaN in every format

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> table;
  return table;
}

std::string rangesOf(const std::vector<uint32_t>& threads) {
  std::string text;
  for (size_t i = 0; i < threads.size();) {
    size_t end = i + 1;
    while (end < threads.size() && threads[end] == threads[end - 1] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(threads[i]);
    if (end > i + 1) text.append("-").append(std::to_string(threads[end - 1]));
    i = end;
  }
  return text;
}

/// As if it had just been allocated: what a fiber that was given up left there is forgotten.
void clearStack([[maybe_unused]] std::byte* bottom) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(bottom, FiberStacks::kBytes);
#endif
}

}  // namespace

constinit thread_local Running running{};
constinit thread_local Executor* active = nullptr;

std::string placeOf(const char* what, const Where& where) {
  const std::string file = where.file_name();
  return std::string(what) + " (" + file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line()) + ")";
}

Registration::Registration(const char* name, void (*body)(const void*), size_t parameterBytes, uint32_t maxThreads) {
  kernels()[name] = {name, body, parameterBytes, maxThreads};
}

const Kernel* findKernel(const std::string& name) {
  const auto entry = kernels().find(name);
  return entry == kernels().end() ? nullptr : &entry->second;
}

Executor& Executor::ofThisThread() {
  thread_local Executor executor;
  return executor;
}

void Executor::run(const Kernel& kernel, Grid grid, uint32_t threads, const void* parameters, size_t sharedBytes,
                   uint64_t seed) {
  kernel_ = &kernel;
  active = this;
  running.block = {0, 0, 0};
  if (threads == 0 || threads > FiberStacks::kCount || threads > kernel.maxThreads) {
    fail("launched with " + std::to_string(threads) + " threads, at most " + std::to_string(kernel.maxThreads));
  }
  if (threads % 32 != 0) fail("blocks of " + std::to_string(threads) + " threads, not whole warps, are not modelled");
  parameters_ = parameters;
  running.blockSize = {threads, 1, 1};
  running.gridSize = {grid.x, grid.y, 1};
  if (fibers_.size() < threads) fibers_.resize(threads);
  waiting_.assign(threads / 32, 0);
  shared_.clear();
  dynamic_ = {nullptr, sharedBytes, std::make_unique<std::byte[]>(sharedBytes), true, {}};

  races_.startLaunch();
  Dice dice(seed);
  for (const uint64_t index : shuffledNumbers(uint64_t{grid.x} * grid.y, dice)) {
    running.block = {static_cast<uint32_t>(index % grid.x), static_cast<uint32_t>(index / grid.x), 0};
    schedule_.start(threads / 32, dice.roll());
    runBlock();
  }
  shared_.clear();
  dynamic_ = {};
  if (RaceDetector::refuses && !races_.found().empty()) fail(races_.found());
}

void Executor::runBlock() {
  const uint32_t threads = running.blockSize.x;
  for (uint32_t thread = 0; thread < threads; ++thread) {
    Fiber& fiber = fibers_[thread];
    clearStack(stacks_.bottom(thread));
    fiber.stackPointer = prepareContext(stacks_.top(thread), enterFiber);
    fiber.fakeStack = nullptr;
    fiber.done = false;
    fiber.what = nullptr;
    fiber.asyncGroup = 0;
    fiber.copies.clear();
  }
  for (uint32_t warp = 0; warp < threads / 32; ++warp) {
    waiting_[warp] = 0;
    schedule_.makeReady(warp, kFullMask);
  }
  for (SharedPiece& piece : shared_) piece.used = false;
  if (dynamic_.size > 0) std::memset(dynamic_.bytes.get(), kPoison, dynamic_.size);
  races_.startBlock();
  arrived_ = 0;
  alive_ = threads;
  failure_.clear();

  const int first = schedule_.next();
  running.thread = {static_cast<uint32_t>(first), 0, 0};
  switchTo(nullptr, &fibers_[static_cast<size_t>(first)]);
  if (!failure_.empty()) fail(failure_);
  if (alive_ > 0) fail("divergent barrier: " + whoWaits());
}

/// Leaves `from` (null: home) and enters `to` (null: home). Returns when `from` is entered again.
void Executor::switchTo(Fiber* from, Fiber* to) {
  void*& left = from != nullptr ? from->stackPointer : home_;
  void* entered = to != nullptr ? to->stackPointer : home_;
#if defined(__SANITIZE_ADDRESS__)
  void** fake = from == nullptr ? &homeFakeStack_ : from->done ? nullptr : &from->fakeStack;
  const void* bottom = to == nullptr ? homeBottom_ : stacks_.bottom(static_cast<size_t>(to - fibers_.data()));
  fromHome_ = from == nullptr;
  __sanitizer_start_switch_fiber(fake, bottom, to == nullptr ? homeSize_ : FiberStacks::kBytes);
#endif
  dpMoeSwitchContext(&left, entered);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from == nullptr ? homeFakeStack_ : from->fakeStack, nullptr, nullptr);
#endif
}

void Executor::enterFiber() { active->fiberMain(); }

void Executor::fiberMain() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (fromHome_) {
    homeBottom_ = bottom;
    homeSize_ = size;
  }
#endif
  Fiber& fiber = current();
  try {
    kernel_->body(parameters_);
  } catch (const std::exception& failure) {
    failure_ = "thread " + std::to_string(running.thread.x) + ": " + failure.what();
  }
  fiber.done = true;
  --alive_;
  leaveFiber(fiber);
}

void Executor::leaveFiber(Fiber& fiber) {
  const int next = failure_.empty() ? schedule_.next() : -1;
  if (next < 0) {
    switchTo(&fiber, nullptr);
    return;
  }
  running.thread.x = static_cast<uint32_t>(next);
  Fiber& chosen = fibers_[static_cast<size_t>(next)];
  if (&chosen != &fiber) switchTo(&fiber, &chosen);
}

std::string Executor::whoWaits() const {
  std::map<std::string, std::vector<uint32_t>> places;
  for (uint32_t thread = 0; thread < running.blockSize.x; ++thread) {
    const Fiber& fiber = fibers_[thread];
    places[fiber.done ? "have ended" : "wait at " + placeOf(fiber.what, fiber.where)].push_back(thread);
  }
  std::string text;
  for (const auto& [place, threads] : places) {
    text += (text.empty() ? "threads " : "; threads ") + rangesOf(threads) + " " + place;
  }
  return text;
}

void Executor::fail(const std::string& text) const {
  throw Fault("kernel " + std::string(kernel_->name) + ", block (" + std::to_string(running.block.x) + ", " +
              std::to_string(running.block.y) + "): " + text);
}

}  // namespace dp_moe::emulation
