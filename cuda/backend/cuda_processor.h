#pragma once

#include "context.h"
#include "cuda_backend.h"
#include "cuda_memory.h"
#include "launcher.h"
#include "processor.h"

namespace dp_moe {

class CudaProcessor final : public Processor {
 public:
  /// Throws BACKEND_UNAVAILABLE with the reason.
  CudaProcessor(int index, DType precision);
  ~CudaProcessor() override;

  const DeviceInfo& info() const override { return info_; }
  Backend& backend() override { return backend_; }
  Memory& memory() override { return memory_; }
  void finish() override { launcher_.check(); }
  /// As the environment variable DP_MOE_CUDA_SYNC.
  void checkEachLaunch(bool checked) { launcher_.checkEachLaunch(checked); }

  /// Bytes that tensors may take, so that ops find room for their workspaces.
  int64_t availableMemory() {
    const int64_t free = memory_.available();
    return free - free / 16;
  }

 private:
  cuda::Context context_;
  CudaMemory memory_;
  Launcher launcher_;
  DeviceInfo info_;
  CudaBackend backend_;
};

}  // namespace dp_moe
