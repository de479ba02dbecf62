#pragma once

#include "cpu_backend.h"
#include "processor.h"

namespace dp_moe {

class CpuProcessor final : public Processor {
 public:
  explicit CpuProcessor(int threads);
  const DeviceInfo& info() const override { return info_; }
  Backend& backend() override { return backend_; }
  Memory& memory() override { return memory_; }
  void finish() override {}  // an op has ended when its call returns

 private:
  HostMemory memory_;
  ThreadPool threads_;
  DeviceInfo info_;
  CpuBackend backend_;
};

}  // namespace dp_moe
