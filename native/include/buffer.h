#pragma once

#include <cstdint>

#include "bfloat16.h"
#include "dtype.h"

namespace dp_moe {

/// Memory an op reads; `data` is null where an optional operand is left out. A device address on CUDA.
template <class T>
struct Input {
  const T* data;
  int64_t size;
};

/// Memory an op writes, or reads and writes.
template <class T>
struct Output {
  T* data;
  int64_t size;
};

/// Activations: float32, or bfloat16 on backends that store it (`Device::stores`); then `bfloat16Data` is
/// what may be read, and `data` only says whether the operand is there. A backend for float32 alone uses one as the
/// Input<float> it is.
struct RealInput : Input<float> {
  template <class T>
  using Of = Input<T>;
  DType dtype = DType::float32;

  RealInput() : Input<float>{nullptr, 0} {}
  RealInput(Input<float> floats) : Input<float>(floats) {}
  RealInput(Input<bfloat16> halves)
      : Input<float>{reinterpret_cast<const float*>(halves.data), halves.size}, dtype(DType::bfloat16) {}
  const bfloat16* bfloat16Data() const { return reinterpret_cast<const bfloat16*>(data); }
};

/// As RealInput, for memory that an op writes.
struct RealOutput : Output<float> {
  template <class T>
  using Of = Output<T>;
  DType dtype = DType::float32;

  RealOutput() : Output<float>{nullptr, 0} {}
  RealOutput(Output<float> floats) : Output<float>(floats) {}
  RealOutput(Output<bfloat16> halves)
      : Output<float>{reinterpret_cast<float*>(halves.data), halves.size}, dtype(DType::bfloat16) {}
  bfloat16* bfloat16Data() const { return reinterpret_cast<bfloat16*>(data); }
};

}  // namespace dp_moe
