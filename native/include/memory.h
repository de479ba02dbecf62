#pragma once

#include <cstdint>

#include "dtype.h"

namespace dp_moe {

/// Where a device keeps its tensors. reserve and release may be called from any thread; the other calls are made on
/// the device's stream.
class Memory {
 public:
  virtual ~Memory() = default;

  /// Fresh memory, aligned for every kernel; null when there is none. Throws where the device was lost.
  virtual void* reserve(int64_t bytes) = 0;
  virtual void release(void* address, int64_t bytes) noexcept = 0;

  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  virtual void download(void* to, const void* from, int64_t bytes) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  /// Every element becomes `value` (rounded to the dtype).
  virtual void fill(void* to, DType dtype, int64_t count, double value) = 0;
};

/// The memory of the processor itself, aligned to cache lines.
class HostMemory final : public Memory {
 public:
  void* reserve(int64_t bytes) noexcept override;
  void release(void* address, int64_t bytes) noexcept override;
  void upload(void* to, const void* from, int64_t bytes) override;
  void download(void* to, const void* from, int64_t bytes) override;
  void copy(void* to, const void* from, int64_t bytes) override;
  void fill(void* to, DType dtype, int64_t count, double value) override;
};

}  // namespace dp_moe
