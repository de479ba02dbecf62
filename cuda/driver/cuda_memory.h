#pragma once

#include <array>

#include "device_memory.h"
#include "memory.h"

namespace dp_moe {

/// The memory of a CUDA device, in stream order: nothing here waits for the device but download, and upload when the
/// device is far behind.
class CudaMemory final : public Memory {
 public:
  explicit CudaMemory(cuda::Context& context);
  ~CudaMemory() override;

  /// Null when the device has no more; throws DEVICE_LOST.
  void* reserve(int64_t bytes) override;
  void release(void* address, int64_t bytes) noexcept override;
  void upload(void* to, const void* from, int64_t bytes) override;
  void download(void* to, const void* from, int64_t bytes) override;
  void copy(void* to, const void* from, int64_t bytes) override;
  void fill(void* to, DType dtype, int64_t count, double value) override;

  /// Bytes that are free on the device.
  int64_t available();

 private:
  /// Pinned memory through which uploads go, so that the caller's bytes may change at once. While the device reads one
  /// half, the host fills the other.
  struct Half {
    explicit Half(cuda::Context& context);
    cuda::PinnedMemory memory;
    cuda::Event read;  // recorded when the half was full and everything in it was enqueued
    int64_t used = 0;
  };

  cuda::Context& context_;
  CUmemoryPool pool_ = nullptr;  // the driver's own
  std::array<Half, 2> halves_;
  int current_ = 0;
};

}  // namespace dp_moe
