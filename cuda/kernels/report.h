#pragma once

#include <cstdint>

namespace dp_moe {

/// How a kernel tells of a wrong value in an operand; it goes on without what it cannot use.
struct Report {
  int32_t* status;
  int32_t code;
};

}  // namespace dp_moe
