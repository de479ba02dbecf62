#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>

#include "error.h"

namespace dp_moe {

/// Runs a device's ops one after another on a thread of its own. An op may only start work that ends later; `finish`
/// waits for that before each wait.
///
/// After an op has failed, the ops behind it are skipped up to the next wait, which receives the failure; from there on
/// the stream works as before.
class Stream {
 public:
  using Op = std::function<void()>;
  /// Receives the failure of an earlier op, if there was one. Runs on the stream's thread.
  using Wait = std::function<void(std::optional<Error>)>;

  /// `finish` throws what failed in the work that ops started. At most `capacity` ops are queued; enqueue blocks while
  /// that many wait.
  explicit Stream(Op finish = [] {}, size_t capacity = 65536);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void enqueue(Op op);
  /// Runs `wait` after everything enqueued so far, whatever failed.
  void enqueueWait(Wait wait);

  /// Blocks until everything enqueued so far has run.
  void drain();

  /// Lets the running op finish, drops the queued ones, answers the queued waits with DISPOSED and ends the thread.
  void close();

 private:
  using Command = std::variant<Op, Wait>;

  const Op finish_;
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable filled_;   // the thread waits here for commands
  std::condition_variable drained_;  // producers wait here for room
  std::deque<Command> queue_;
  bool running_ = false;  // the thread holds commands that it took from the queue
  std::atomic<bool> closing_ = false;
  std::optional<Error> failure_;  // the thread's own
  std::thread thread_;

  void push(Command command);
  void loop();
  void execute(Command& command);
  void answer(const Wait& wait);
};

}  // namespace dp_moe
