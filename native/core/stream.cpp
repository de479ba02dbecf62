#include "stream.h"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

namespace dp_moe {

namespace {

// Commands taken from the queue under one lock: few, so that a producer that waits for room soon has it.
constexpr size_t kTaken = 32;

Error currentFailure() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {"OUT_OF_MEMORY", "The engine found no memory for an op's workspace"};
  } catch (const std::exception& error) {
    return {"ENGINE", error.what()};
  } catch (...) {
    return {"ENGINE", "An op failed with an unknown exception"};
  }
}

}  // namespace

Stream::Stream(Op finish, size_t capacity)
    : finish_(std::move(finish)), capacity_(capacity), thread_([this] { loop(); }) {}

Stream::~Stream() { close(); }

void Stream::enqueue(Op op) { push(std::move(op)); }

void Stream::enqueueWait(Wait wait) { push(std::move(wait)); }

void Stream::push(Command command) {
  std::unique_lock lock(mutex_);
  drained_.wait(lock, [this] { return queue_.size() < capacity_ || closing_; });
  if (closing_) throw Error("DISPOSED", "The device was closed");
  queue_.push_back(std::move(command));
  if (queue_.size() == 1) filled_.notify_one();
}

void Stream::drain() {
  std::unique_lock lock(mutex_);
  drained_.wait(lock, [this] { return (queue_.empty() && !running_) || closing_; });
}

void Stream::close() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  filled_.notify_one();
  drained_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Stream::loop() {
  std::array<Command, kTaken> commands;
  std::unique_lock lock(mutex_);
  for (;;) {
    filled_.wait(lock, [this] { return !queue_.empty() || closing_; });
    if (queue_.empty()) return;
    const size_t count = std::min(kTaken, queue_.size());
    std::move(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count), commands.begin());
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
    running_ = true;
    lock.unlock();
    drained_.notify_all();
    for (size_t i = 0; i < count; ++i) {
      execute(commands[i]);
      commands[i] = Op();
    }
    lock.lock();
    running_ = false;
    drained_.notify_all();
  }
}

void Stream::execute(Command& command) {
  if (closing_) failure_.emplace("DISPOSED", "The device was closed before this value was computed");
  if (const Wait* wait = std::get_if<Wait>(&command)) {
    answer(*wait);
  } else if (!failure_) {
    try {
      std::get<Op>(command)();
    } catch (...) {
      failure_ = currentFailure();
    }
  }
}

void Stream::answer(const Wait& wait) {
  try {
    finish_();
  } catch (...) {
    failure_ = currentFailure();  // of an op before the one that failed at once: those behind that one were skipped
  }
  wait(std::exchange(failure_, std::nullopt));
}

}  // namespace dp_moe
