#pragma once

#include <memory>
#include <string>
#include <vector>

#include "driver_api.h"

namespace dp_moe::cuda {

/// CUDA 13.0: what the kernels are compiled with, and so the oldest driver that loads them.
constexpr int kNeededVersion = 13000;

/// "13.0" for 13000.
std::string versionText(int version);

/// The CUDA driver, opened at run time: libcuda.so.1, or the file that the environment variable DP_MOE_CUDA_DRIVER
/// names.
class Library {
 public:
  /// Throws BACKEND_UNAVAILABLE with the reason: no driver, no driver at all in that file, too old, no device.
  Library();

  const DriverApi& api() const { return api_; }
  /// The file that was loaded.
  const std::string& path() const { return path_; }
  /// The CUDA version that the driver supports, 1000 * major + 10 * minor.
  int version() const { return version_; }
  /// "CUDA_ERROR_OUT_OF_MEMORY: out of memory"
  std::string textOf(CUresult result) const;

 private:
  struct Close {
    void operator()(void* handle) const;
  };
  std::unique_ptr<void, Close> handle_;
  DriverApi api_;
  std::string path_;
  int version_ = 0;
};

/// One device, as the driver describes it.
struct DeviceDescription {
  std::string name;
  int major;  // compute capability
  int minor;
  int64_t memory;  // bytes
  int multiprocessors;
  int sharedMemory;  // bytes that a block may have at most
};

std::vector<DeviceDescription> describeDevices(const Library& library);

}  // namespace dp_moe::cuda
