#pragma once

#include <cstdint>
#include <string>

#include "backend.h"
#include "dtype.h"
#include "memory.h"

namespace dp_moe {

struct DeviceInfo {
  std::string instructionSet;
  int vectorWidth;                   // floats per vector register; threads of a warp on CUDA
  int threads;                       // multiprocessors on CUDA
  bool bfloat16 = false;             // whether tensors may be bfloat16
  DType precision = DType::float32;  // what activations should be stored in
};

/// What a device computes with: the ops and the memory they work on. Calls are made on the device's stream, but for
/// Memory's reserve and release.
class Processor {
 public:
  virtual ~Processor() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual Backend& backend() = 0;
  virtual Memory& memory() = 0;
  /// Waits for the ops that were started and throws what failed in them.
  virtual void finish() = 0;
};

}  // namespace dp_moe
