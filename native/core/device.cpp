#include "device.h"

#include <cstdlib>
#include <utility>

#include "cpu_backend.h"
#include "dispatch.h"
#include "error.h"
#include "resources.h"

namespace dp_moe {

namespace {

constexpr int kMaxThreads = 1024;

int threadCount(int asked) {
  if (asked > 0 && asked <= kMaxThreads) return asked;
  if (asked != 0) {
    throw Error("INVALID_ARGUMENT",
                "Expected 1 to " + std::to_string(kMaxThreads) + " threads, got " + std::to_string(asked));
  }
  const char* variable = std::getenv("DP_MOE_THREADS");
  if (variable == nullptr || *variable == '\0') return availableThreads();
  char* end = nullptr;
  const long threads = std::strtol(variable, &end, 10);
  if (*end != '\0' || threads < 1 || threads > kMaxThreads) {
    throw Error("INVALID_ARGUMENT",
                "Expected 1 to " + std::to_string(kMaxThreads) + " for DP_MOE_THREADS, got '" + variable + "'");
  }
  return static_cast<int>(threads);
}

}  // namespace

std::unique_ptr<Device> Device::open(const std::string& name, const DeviceOptions& options) {
  if (name == "cpu") {
    const int64_t limit = options.memoryLimit > 0 ? options.memoryLimit : availableMemory();
    return std::unique_ptr<Device>(new Device(threadCount(options.threads), limit));
  }
  if (name == "cuda") {
    throw Error("BACKEND_UNAVAILABLE", "This build has no CUDA backend; open 'cpu' instead");
  }
  throw Error("BACKEND_UNAVAILABLE", "Expected a device named 'cpu' or 'cuda', got '" + name + "'");
}

Device::Device(int threads, int64_t memoryLimit)
    : memory_(std::make_unique<HostMemory>()), pool_(*memory_, memoryLimit), threads_(threads) {
  const KernelTable& kernels = selectKernels();
  info_ = {kernels.name, kernels.vectorWidth, threads};
  backend_ = std::make_unique<CpuBackend>(threads_, kernels);
}

Device::~Device() { stream_.close(); }

Block Device::allocate(int64_t bytes) {
  if (!pool_.has(bytes)) {
    stream_.drain();
    pool_.trim();
  }
  return pool_.allocate(bytes);
}

}  // namespace dp_moe
