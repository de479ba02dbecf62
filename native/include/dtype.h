#pragma once

#include <cstdint>

#include "bfloat16.h"

namespace dp_moe {

/// What a tensor holds. The numbers are part of the binding (lib/engine/tensor.ts lists them in this order).
enum class DType : int32_t { float32 = 0, float64 = 1, int32 = 2, bfloat16 = 3 };

constexpr int kDTypes = 4;

constexpr int64_t bytesPerElement(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::bfloat16 ? 2 : 4;
}

constexpr const char* nameOf(DType dtype) {
  constexpr const char* names[] = {"float32", "float64", "int32", "bfloat16"};
  return names[static_cast<int>(dtype)];
}

template <class T>
inline constexpr DType dtypeOf = DType::float32;
template <>
inline constexpr DType dtypeOf<double> = DType::float64;
template <>
inline constexpr DType dtypeOf<int32_t> = DType::int32;
template <>
inline constexpr DType dtypeOf<bfloat16> = DType::bfloat16;

}  // namespace dp_moe
