#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "processor.h"
#include "storage.h"
#include "stream.h"

namespace dp_moe {

struct DeviceOptions {
  int threads = 0;                   // CPU only; 0: DP_MOE_THREADS, else what the container allows
  int64_t memoryLimit = 0;           // bytes of tensors; 0: what the container allows, what is free on CUDA
  DType precision = DType::float32;  // what activations should be stored in; bfloat16 on CUDA only
};

/// A place where ops run: a backend, its memory and the stream that orders them. Used from one thread.
class Device {
 public:
  /// 'cpu', 'cuda' (the first one) or 'cuda:N'. Throws BACKEND_UNAVAILABLE with the reason.
  static std::unique_ptr<Device> open(const std::string& name, const DeviceOptions& options);

  ~Device();

  const DeviceInfo& info() const { return processor_->info(); }
  Backend& backend() { return processor_->backend(); }
  Memory& memory() { return processor_->memory(); }
  Stream& stream() { return stream_; }
  /// Whether tensors of this dtype can live here.
  bool stores(DType dtype) const { return dtype != DType::bfloat16 || info().bfloat16; }
  MemoryUse memoryUse() const { return pool_.use(); }

  /// Throws OUT_OF_MEMORY, after waiting for the stream once to give pooled blocks back.
  Block allocate(int64_t bytes);
  void release(const Block& block) { pool_.release(block); }

 private:
  Device(std::unique_ptr<Processor> processor, int64_t memoryLimit);

  void trim();

  // The stream is the last member: it ends first, while everything its op may use still exists.
  std::unique_ptr<Processor> processor_;
  StoragePool pool_;
  Stream stream_;
};

}  // namespace dp_moe
