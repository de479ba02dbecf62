#include "device.h"

#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

#include "cpu_processor.h"
#include "cuda_processor.h"
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

/// N of 'cuda:N', 0 for 'cuda'.
std::optional<int> cudaIndex(std::string_view name) {
  constexpr std::string_view prefix = "cuda";
  constexpr size_t maxDigits = 3;
  if (name.substr(0, prefix.size()) != prefix) return std::nullopt;
  name.remove_prefix(prefix.size());
  if (name.empty()) return 0;
  if (name.front() != ':') return std::nullopt;
  name.remove_prefix(1);
  const bool digits = name.find_first_not_of("0123456789") == std::string_view::npos;
  if (name.empty() || name.size() > maxDigits || !digits) return std::nullopt;
  return std::stoi(std::string(name));
}

}  // namespace

std::unique_ptr<Device> Device::open(const std::string& name, const DeviceOptions& options) {
  if (options.precision != DType::float32 && options.precision != DType::bfloat16) {
    throw Error("INVALID_ARGUMENT",
                std::string("Expected a precision of float32 or bfloat16, got ") + nameOf(options.precision));
  }
  if (name == "cpu") {
    if (options.precision != DType::float32) {
      throw Error("INVALID_ARGUMENT", "Expected precision float32 on 'cpu', got bfloat16, which needs a CUDA device");
    }
    const int64_t limit = options.memoryLimit > 0 ? options.memoryLimit : availableMemory();
    return std::unique_ptr<Device>(new Device(std::make_unique<CpuProcessor>(threadCount(options.threads)), limit));
  }
  if (const std::optional<int> index = cudaIndex(name)) {
    auto processor = std::make_unique<CudaProcessor>(*index, options.precision);
    const int64_t limit = options.memoryLimit > 0 ? options.memoryLimit : processor->availableMemory();
    return std::unique_ptr<Device>(new Device(std::move(processor), limit));
  }
  throw Error("BACKEND_UNAVAILABLE", "Expected a device named 'cpu', 'cuda' or 'cuda:0', got '" + name + "'");
}

Device::Device(std::unique_ptr<Processor> processor, int64_t memoryLimit)
    : processor_(std::move(processor)),
      pool_(processor_->memory(), memoryLimit),
      stream_([this] { processor_->finish(); }) {}

Device::~Device() { stream_.close(); }

Block Device::allocate(int64_t bytes) {
  if (!pool_.has(bytes)) trim();
  try {
    return pool_.allocate(bytes);
  } catch (const Error& error) {
    // The limit may be more than the system has; then pooled blocks of other sizes are in the way.
    if (error.code() != "OUT_OF_MEMORY" || pool_.use().pooled == 0) throw;
  }
  trim();
  return pool_.allocate(bytes);
}

void Device::trim() {
  stream_.drain();
  pool_.trim();
}

}  // namespace dp_moe
