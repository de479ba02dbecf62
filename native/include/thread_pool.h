#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace dp_moe {

/// A reference to a callable void(int64_t task, int thread); the callable outlives the call it is passed to.
class TaskFunction {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, TaskFunction>)
  TaskFunction(F&& f)  // NOLINT: implicit by design, as std::function_ref
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, int64_t task, int thread) {
          (*static_cast<std::remove_reference_t<F>*>(object))(task, thread);
        }) {}
  void operator()(int64_t task, int thread) const { call_(object_, task, thread); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int);
};

/// Threads that share the tasks of one op. The calling thread works too, as thread 0.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept;

  /// Runs f(task, thread) for every task in [0, tasks), tasks handed out in rising order to whichever thread is free,
  /// and returns when all are done. An exception of a task is rethrown here after all threads have stopped. Not
  /// re-entrant.
  void parallelFor(int64_t tasks, TaskFunction f);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dp_moe
