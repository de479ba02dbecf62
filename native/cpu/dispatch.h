#pragma once

#include <vector>

#include "kernels/kernel_table.h"

namespace dp_moe {

/// The kernels of every instruction set that this processor has, weakest first. Never empty.
std::vector<const KernelTable*> availableKernels();

/// The best of them, or the one that the environment variable DP_MOE_ISA names.
/// Throws BACKEND_UNAVAILABLE where the processor lacks it or this build does not know it.
const KernelTable& selectKernels();

}  // namespace dp_moe
