#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "error.h"
#include "library.h"

namespace dp_moe::cuda {

/// One device of the driver: its primary context, the stream that orders all work, and what is known of its failures.
/// Any thread may call it.
class Context {
 public:
  /// Throws BACKEND_UNAVAILABLE with the reason.
  explicit Context(int index);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Library& library() const { return library_; }
  const DriverApi& api() const { return library_.api(); }
  const DeviceDescription& description() const { return description_; }
  /// "cuda:0"
  const std::string& name() const { return name_; }
  CUdevice device() const { return device_; }
  CUstream stream() const { return stream_; }

  /// Makes the context this thread's. Throws DEVICE_LOST, always the same, once the device was lost.
  void enter();
  /// As enter, for what must not throw: false once the device was lost.
  bool tryEnter() noexcept;

  /// Throws what a failure of `tried` ("copying 12 bytes to the device") means for the user. A failure that ends the
  /// device is kept: from then on enter() throws it.
  void check(CUresult result, const char* tried) {
    if (result != CUDA_SUCCESS) fail(result, tried);
  }
  [[noreturn]] void fail(CUresult result, const std::string& tried);

  /// Waits for everything launched so far; a failure is of `kernel`, where one is named.
  void synchronize(std::string_view kernel = {});

 private:
  Library library_;
  DeviceDescription description_;
  std::string name_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
  std::atomic<bool> lost_ = false;
  std::mutex mutex_;
  std::optional<Error> loss_;  // guarded by mutex_

  void release() noexcept;
};

}  // namespace dp_moe::cuda
