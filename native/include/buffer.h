#pragma once

#include <cstdint>

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

}  // namespace dp_moe
