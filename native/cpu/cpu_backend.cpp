#include "cpu_backend.h"

namespace dp_moe {

CpuBackend::CpuBackend(ThreadPool& threads, const KernelTable& kernels)
    : threads_(threads), kernels_(kernels), threadScratch_(static_cast<size_t>(threads.threads())) {}

}  // namespace dp_moe
