#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend.h"
#include "memory.h"
#include "storage.h"
#include "stream.h"
#include "thread_pool.h"

namespace dp_moe {

struct DeviceOptions {
  int threads = 0;          // 0: DP_MOE_THREADS, else what the container allows
  int64_t memoryLimit = 0;  // bytes of tensors; 0: what the container allows
};

struct DeviceInfo {
  std::string instructionSet;
  int vectorWidth;  // floats per vector register
  int threads;
  bool bfloat16 = false;  // whether tensors may be bfloat16
};

/// A place where ops run: a backend, its memory and the stream that orders them. Used from one thread.
class Device {
 public:
  /// Throws BACKEND_UNAVAILABLE with the reason.
  static std::unique_ptr<Device> open(const std::string& name, const DeviceOptions& options);

  ~Device();

  const DeviceInfo& info() const { return info_; }
  Backend& backend() { return *backend_; }
  Memory& memory() { return *memory_; }
  Stream& stream() { return stream_; }
  /// Whether tensors of this dtype can live here.
  bool stores(DType dtype) const { return dtype != DType::bfloat16 || info_.bfloat16; }
  MemoryUse memoryUse() const { return pool_.use(); }

  /// Throws OUT_OF_MEMORY, after waiting for the stream once to give pooled blocks back.
  Block allocate(int64_t bytes);
  void release(const Block& block) { pool_.release(block); }

 private:
  Device(int threads, int64_t memoryLimit);

  // The stream is the last member: it ends first, while everything its op may use still exists.
  DeviceInfo info_;
  std::unique_ptr<Memory> memory_;
  StoragePool pool_;
  ThreadPool threads_;
  std::unique_ptr<Backend> backend_;
  Stream stream_;
};

}  // namespace dp_moe
