#pragma once

#include <cstdint>

namespace dp_moe {

/// 32 bytes from the operating system's generator; an Error if it has none to give.
void randomKey(uint8_t out[32]);

}  // namespace dp_moe
