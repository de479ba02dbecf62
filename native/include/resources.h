#pragma once

#include <cstdint>

namespace dp_moe {

/// Threads the process may keep busy: the processors it may run on, less where the container has a smaller quota.
int availableThreads();

/// Bytes of memory the process may use: the machine's, less where the container has a smaller limit.
int64_t availableMemory();

}  // namespace dp_moe
