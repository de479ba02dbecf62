#pragma once

#include <cstddef>

namespace dp_moe::emulation {

/// Leaves the running stack (its pointer goes to *left) for the one at `entered`.
extern "C" void dpMoeSwitchContext(void** left, void* entered);

/// A stack pointer to enter a fresh stack with: `entry` runs at its top and never returns.
void* prepareContext(void* stackTop, void (*entry)());

}  // namespace dp_moe::emulation
