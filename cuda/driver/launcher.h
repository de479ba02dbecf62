#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "device_memory.h"
#include "module.h"

namespace dp_moe {

struct Dim {
  uint32_t x = 1;
  uint32_t y = 1;
};

/// Launches kernels on a device's stream, asynchronously, and finds out what became of them. Used on the device's
/// stream thread.
///
/// A kernel reports a wrong value it met with `reportError(p.status, p.errorCode, value)`; the first report wins and is
/// thrown by the next check(), which every wait makes. With the environment variable DP_MOE_CUDA_SYNC=1 every launch is
/// followed by a check, so that the op that failed throws itself.
class Launcher {
 public:
  explicit Launcher(cuda::Context& context);

  /// Runs `kernel` with a copy of `params`. An empty grid is skipped. Throws ENGINE when it cannot be launched.
  template <class Params>
  void launch(std::string_view kernel, Dim grid, uint32_t threads, const Params& params, uint32_t sharedBytes = 0) {
    static_assert(std::is_trivially_copyable_v<Params>);
    launchWith(kernel, grid, threads, &params, sharedBytes);
  }

  /// Device address of the two numbers that reportError writes.
  int32_t* status() const { return static_cast<int32_t*>(status_.address()); }
  /// The error that a report's value means, made if it is reported.
  using ErrorOf = std::function<Error(int32_t value)>;
  /// A number for a kernel's params to report `error` with, good until the next check that finds nothing, or until
  /// kMaxErrorCodes more were asked for.
  int32_t errorCode(ErrorOf error);

  /// Whether every launch is followed by a check: then an op may check what costs a launch of its own, too.
  bool checked() const { return checked_; }
  void checkEachLaunch(bool checked) { checked_ = checked; }
  /// Waits for everything launched so far and throws what failed or was reported.
  void check();

  /// Device memory of at least `count` elements, undefined, the op's own until the next op. Slots 0 .. 7.
  template <class T>
  T* scratch(int slot, int64_t count) {
    return static_cast<T*>(scratchBytes(slot, count * static_cast<int64_t>(sizeof(T))));
  }

  /// How many blocks run at once, for grids that stay; results must not depend on it.
  int multiprocessors() const { return context_.description().multiprocessors; }
  /// Shared memory that a block may have at most, in bytes.
  int sharedMemory() const { return context_.description().sharedMemory; }

  static constexpr int kSlots = 8;
  static constexpr int kMaxErrorCodes = 4096;

 private:
  cuda::Context& context_;
  cuda::Module module_;
  cuda::DeviceMemory status_;        // {code, value}; code 0: nothing was reported
  cuda::PinnedMemory statusOnHost_;  // where check() reads them
  std::array<cuda::DeviceMemory, kSlots> scratch_;
  std::vector<ErrorOf> errors_;  // by code, round and round
  int32_t lastCode_ = 0;
  bool checked_;

  void launchWith(std::string_view kernel, Dim grid, uint32_t threads, const void* params, uint32_t sharedBytes);
  void* scratchBytes(int slot, int64_t bytes);
  void clearStatus();
  /// Waits and throws what failed or was reported; the codes stay good where nothing was.
  void throwReport(std::string_view kernel = {});
  void forgetCodes();
};

}  // namespace dp_moe
