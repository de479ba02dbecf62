#pragma once

#include <string>

#include "../kernels/report.h"
#include "error.h"
#include "launcher.h"

// What kernels report with: the checks of the CPU backend that need the contents of an operand.

namespace dp_moe {

/// For an index that is outside [least, limit).
inline Report indexReport(Launcher& launcher, const char* op, const char* field, int64_t least, int64_t limit) {
  return {launcher.status(), launcher.errorCode([=](int32_t value) {
            return Error("INVALID_ARGUMENT", std::string(op) + ": expected " + field + " in [" + std::to_string(least) +
                                                 ", " + std::to_string(limit) + "), got " + std::to_string(value));
          })};
}

/// For offsets that do not rise within the rows.
inline Report offsetsReport(Launcher& launcher, const char* op, const char* field, int64_t rows) {
  return {launcher.status(), launcher.errorCode([=](int32_t value) {
            return Error("INVALID_ARGUMENT", std::string(op) + ": expected " + field + " to rise from 0 to at most " +
                                                 std::to_string(rows) + " rows, got " + std::to_string(value));
          })};
}

}  // namespace dp_moe
