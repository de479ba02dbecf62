#include "thread_pool.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dp_moe {

namespace {

// Ops follow each other within microseconds, and waking a sleeping thread costs tens of them: spin that long first.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `word` differs from `old`: spins, then sleeps.
void waitForChange(const std::atomic<uint32_t>& word, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause();
  }
  word.wait(old, std::memory_order_acquire);
}

// The gate counts the helpers that are inside an op. While its closed bit is set nobody may start.
constexpr uint32_t kClosed = 1u << 31;

}  // namespace

struct ThreadPool::State {
  std::atomic<uint32_t> epoch{0};
  std::atomic<uint32_t> gate{kClosed};
  std::atomic<bool> stopping{false};

  // The running op. Written while the gate is closed and empty.
  const TaskFunction* function = nullptr;
  int64_t tasks = 0;
  std::atomic<int64_t> next{0};

  std::mutex errorMutex;
  std::exception_ptr error;

  std::vector<std::thread> helpers;

  void runTasks(int thread) {
    try {
      for (int64_t task = next.fetch_add(1, std::memory_order_relaxed); task < tasks;
           task = next.fetch_add(1, std::memory_order_relaxed)) {
        (*function)(task, thread);
      }
    } catch (...) {
      next.store(tasks, std::memory_order_relaxed);
      std::lock_guard lock(errorMutex);
      if (!error) error = std::current_exception();
    }
  }

  void helperLoop(int thread) {
    uint32_t seen = 0;
    for (;;) {
      waitForChange(epoch, seen);
      seen = epoch.load(std::memory_order_acquire);
      if (stopping.load(std::memory_order_relaxed)) return;
      if ((gate.fetch_add(1, std::memory_order_acq_rel) & kClosed) == 0) runTasks(thread);
      if (gate.fetch_sub(1, std::memory_order_acq_rel) == (kClosed | 1)) gate.notify_one();
    }
  }

  /// A helper that has not woken up yet is not waited for: it finds the gate closed.
  void closeGate() {
    uint32_t value = gate.fetch_or(kClosed, std::memory_order_acq_rel) | kClosed;
    while (value != kClosed) {
      waitForChange(gate, value);
      value = gate.load(std::memory_order_acquire);
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  for (int thread = 1; thread < threads; ++thread) {
    state_->helpers.emplace_back([state = state_.get(), thread] { state->helperLoop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stopping.store(true, std::memory_order_relaxed);
  state_->epoch.fetch_add(1, std::memory_order_release);
  state_->epoch.notify_all();
  for (std::thread& helper : state_->helpers) helper.join();
}

int ThreadPool::threads() const noexcept { return static_cast<int>(state_->helpers.size()) + 1; }

void ThreadPool::parallelFor(int64_t tasks, TaskFunction f) {
  State& state = *state_;
  if (tasks <= 1 || state.helpers.empty()) {
    for (int64_t task = 0; task < tasks; ++task) f(task, 0);
    return;
  }
  state.function = &f;
  state.tasks = tasks;
  state.next.store(0, std::memory_order_relaxed);
  state.gate.fetch_and(~kClosed, std::memory_order_acq_rel);
  state.epoch.fetch_add(1, std::memory_order_release);
  state.epoch.notify_all();
  state.runTasks(0);
  state.closeGate();
  if (state.error) std::rethrow_exception(std::exchange(state.error, nullptr));
}

}  // namespace dp_moe
