#pragma once

#include <initializer_list>
#include <optional>
#include <string>

#include "../../native/include/checks.h"

namespace dp_moe {

/// A kernel's name for this storage type: "add_float32" or "add_bfloat16".
inline std::string typed(const char* name, DType dtype) { return std::string(name) + "_" + nameOf(dtype); }

/// A real operand of a call, for realType.
struct RealOperand {
  bool given;
  DType dtype;
  RealOperand(const RealInput& input) : given(input.data != nullptr), dtype(input.dtype) {}
  RealOperand(const RealOutput& output) : given(output.data != nullptr), dtype(output.dtype) {}
};

/// The one dtype of a call's real operands; those left out have none (all left out: float32).
inline DType realType(const char* op, std::initializer_list<RealOperand> operands) {
  std::optional<DType> dtype;
  for (const RealOperand& operand : operands) {
    if (!operand.given) continue;
    if (dtype && *dtype != operand.dtype) {
      throw Error("SHAPE_MISMATCH", std::string(op) + ": expected one dtype for all activations, got " +
                                        nameOf(*dtype) + " and " + nameOf(operand.dtype));
    }
    dtype = operand.dtype;
  }
  return dtype.value_or(DType::float32);
}

}  // namespace dp_moe
