#include "device.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <utility>

namespace dp_moe::emulation {

namespace {

constexpr size_t kDefaultDynamicShared = 48 * 1024;
constexpr size_t kLongestQueue = 4096;

template <class Owners, class T>
auto ownerOf(Owners& owners, const T* item) {
  return std::find_if(owners.begin(), owners.end(), [&](const auto& owner) { return owner.get() == item; });
}

template <class T, class Owners, class Handle>
T* itemOf(const Owners& owners, Handle handle) {
  auto* item = reinterpret_cast<T*>(handle);
  return ownerOf(owners, item) == owners.end() ? nullptr : item;
}

}  // namespace

EmulatedDevice& EmulatedDevice::instance() {
  // Never destroyed: threads of the host may still call while the process ends.
  static auto& device = *new EmulatedDevice;
  return device;
}

void EmulatedDevice::configure(const Settings& settings) {
  settings_ = settings;
  dice_ = Dice(settings.seed);
  calls_ = allocations_ = launches_ = 0;
}

CUresult EmulatedDevice::enter() {
  if (failure_ == CUDA_SUCCESS && ++calls_ == settings_.lostAt) {
    fail(CUDA_ERROR_ECC_UNCORRECTABLE, "a loss that the settings ask for");
  }
  return failure_;
}

void EmulatedDevice::fail(CUresult result, const std::string& text) {
  failure_ = result;
  failureText_ = text;
  for (const auto& stream : streams_) {
    stream->done = stream->enqueued;
    stream->commands.clear();
  }
}

bool EmulatedDevice::release() {
  if (users_ == 0) return false;
  if (--users_ > 0) return true;
  streams_.clear();
  events_.clear();
  functions_.clear();
  heap_ = {};
  failure_ = CUDA_SUCCESS;
  failureText_.clear();
  return true;
}

Stream* EmulatedDevice::makeStream() { return streams_.insert(std::make_unique<Stream>()).first->get(); }
Stream* EmulatedDevice::find(CUstream stream) { return itemOf<Stream>(streams_, stream); }
void EmulatedDevice::destroy(Stream* stream) {
  runUntil(*stream, stream->enqueued);
  for (const auto& event : events_) {
    if (event->stream == stream) event->stream = nullptr;
  }
  streams_.erase(ownerOf(streams_, stream));
}

Event* EmulatedDevice::makeEvent() { return events_.insert(std::make_unique<Event>()).first->get(); }
Event* EmulatedDevice::find(CUevent event) { return itemOf<Event>(events_, event); }
void EmulatedDevice::destroy(Event* event) { events_.erase(ownerOf(events_, event)); }

Function* EmulatedDevice::functionOf(const std::string& name) {
  const Kernel* kernel = findKernel(name);
  if (kernel == nullptr) return nullptr;
  auto& function = functions_[name];
  if (!function) function = std::make_unique<Function>(Function{kernel, kDefaultDynamicShared});
  return function.get();
}

Function* EmulatedDevice::find(CUfunction function) {
  for (const auto& [name, known] : functions_) {
    if (known.get() == reinterpret_cast<Function*>(function)) return known.get();
  }
  return nullptr;
}

void EmulatedDevice::enqueue(Stream& stream, std::function<void()> command) {
  stream.commands.push_back(std::move(command));
  ++stream.enqueued;
  makeProgress(stream);
}

void EmulatedDevice::makeProgress(Stream& stream) {
  switch (settings_.seed % 3) {
    case 0:
      return runUntil(stream, stream.enqueued);
    case 1:
      if (stream.commands.size() >= kLongestQueue) runUntil(stream, stream.enqueued);
      return;
    default:
      if (dice_.below(8) == 0) runUntil(stream, stream.done + 1 + dice_.below(8));
  }
}

void EmulatedDevice::runUntil(Stream& stream, uint64_t position) {
  if (stream.commands.empty() || stream.done >= position) return;
  heap_.open();
  while (!stream.commands.empty() && stream.done < position) {
    const std::function<void()> command = std::move(stream.commands.front());
    stream.commands.pop_front();
    ++stream.done;
    try {
      command();
    } catch (const std::exception& failure) {
      fail(CUDA_ERROR_LAUNCH_FAILED, failure.what());
    }
  }
  heap_.close();
}

void EmulatedDevice::runAll() {
  for (const auto& stream : streams_) runUntil(*stream, stream->enqueued);
}

void EmulatedDevice::launch(Stream& stream, Launch launch) {
  const bool fails = launches_ == settings_.launchFailsAt;
  const uint64_t seed = settings_.seed << 32 ^ static_cast<uint64_t>(launches_);
  auto shared = std::make_shared<Launch>(std::move(launch));
  enqueue(stream, [shared, fails, seed] {
    if (fails) throw Fault("kernel " + std::string(shared->kernel->name) + ": a failure that the settings ask for");
    Executor::ofThisThread().run(*shared->kernel, shared->grid, shared->threads, shared->parameters.get(),
                                 shared->sharedBytes, seed);
  });
}

}  // namespace dp_moe::emulation
