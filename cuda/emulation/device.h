#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "../driver/driver_api.h"
#include "device_heap.h"
#include "executor.h"
#include "settings.h"

namespace dp_moe::emulation {

struct Stream {
  std::deque<std::function<void()>> commands;
  uint64_t enqueued = 0;
  uint64_t done = 0;
};

/// A mark in a stream: reached when `position` commands are done.
struct Event {
  Stream* stream = nullptr;
  uint64_t position = 0;
};

struct Function {
  const Kernel* kernel;
  size_t maxDynamicShared;
};

struct Launch {
  const Kernel* kernel;
  Grid grid;
  uint32_t threads;
  size_t sharedBytes;
  std::unique_ptr<std::byte[]> parameters;  // exactly the kernel's, so that AddressSanitizer sees a larger struct
};

/// The device behind the driver's functions. Work is put into streams and runs when the host waits for it, at once, or
/// a little at every call, as the seed has it: whoever reads without waiting finds nothing there.
///
/// A failure while work runs ends the context, as on a device: every call gives that result from then on, until the
/// context has been released by all.
class EmulatedDevice {
 public:
  static EmulatedDevice& instance();

  std::mutex& mutex() { return mutex_; }
  const Settings& settings() const { return settings_; }
  void configure(const Settings& settings);
  DeviceHeap& heap() { return heap_; }

  /// Counts a call; what it has to answer before it does anything.
  CUresult enter();
  CUresult failure() const { return failure_; }
  const std::string& failureText() const { return failureText_; }
  /// Ends the context.
  void fail(CUresult result, const std::string& text);

  void retain() { ++users_; }
  bool release();
  bool isOpen() const { return users_ > 0; }

  Stream* makeStream();
  Stream* find(CUstream stream);
  void destroy(Stream* stream);
  Event* makeEvent();
  Event* find(CUevent event);
  void destroy(Event* event);
  Function* functionOf(const std::string& name);
  Function* find(CUfunction function);

  void enqueue(Stream& stream, std::function<void()> command);
  void runUntil(Stream& stream, uint64_t position);
  void runAll();

  /// Whether this allocation or launch is the one that the settings let fail.
  bool allocationFails() { return ++allocations_ == settings_.outOfMemoryAt; }
  void launch(Stream& stream, Launch launch);
  bool launchIsRefused() { return ++launches_ == settings_.launchRefusedAt; }

 private:
  std::mutex mutex_;
  Settings settings_ = settingsOfEnvironment();
  Dice dice_{settings_.seed};
  DeviceHeap heap_;
  int users_ = 0;
  int64_t calls_ = 0;
  int64_t allocations_ = 0;
  int64_t launches_ = 0;
  CUresult failure_ = CUDA_SUCCESS;
  std::string failureText_;
  std::set<std::unique_ptr<Stream>> streams_;
  std::set<std::unique_ptr<Event>> events_;
  std::map<std::string, std::unique_ptr<Function>> functions_;

  void makeProgress(Stream& stream);
};

}  // namespace dp_moe::emulation
