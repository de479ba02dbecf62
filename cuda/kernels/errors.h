#pragma once

#include <cstdint>

// What a kernel may find wrong with its operands; it goes to reportError with the value in question. The kernel goes on
// without what it cannot use.

namespace dp_moe::DeviceError {

constexpr int32_t index = 1;    // an index outside of what it points into
constexpr int32_t offsets = 2;  // offsets that do not rise from 0 to at most the number of rows

}  // namespace dp_moe::DeviceError
