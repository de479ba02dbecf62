#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "context.h"

namespace dp_moe::cuda {

/// A kernel of the module.
struct Kernel {
  CUfunction function;
  uint32_t sharedBytes = 0;  // dynamic shared memory that it may be launched with; raised on demand
};

/// The compiled kernels: dp-moe.fatbin beside the addon, or the file that the environment variable DP_MOE_CUDA_FATBIN
/// names.
class Module {
 public:
  /// Throws BACKEND_UNAVAILABLE where the file is missing or has nothing for this device.
  explicit Module(Context& context);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Looked up at the first use.
  Kernel& kernel(std::string_view name);

 private:
  Context& context_;
  CUmodule module_ = nullptr;
  std::map<std::string, Kernel, std::less<>> kernels_;
};

}  // namespace dp_moe::cuda
