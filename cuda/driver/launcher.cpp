#include "launcher.h"

#include <cstdlib>
#include <string>
#include <utility>

namespace dp_moe {

namespace {

constexpr int64_t kStatusBytes = 2 * sizeof(int32_t);
constexpr uint32_t kMaxGridY = 65535;

bool checkedByEnvironment() {
  const char* variable = std::getenv("DP_MOE_CUDA_SYNC");
  return variable != nullptr && *variable != '\0' && std::string_view(variable) != "0";
}

CUdeviceptr pointer(const cuda::DeviceMemory& memory) { return reinterpret_cast<uintptr_t>(memory.address()); }

std::string describe(std::string_view kernel, Dim grid, uint32_t threads, uint32_t sharedBytes) {
  return "launching " + std::string(kernel) + " with " + std::to_string(grid.x) + " x " + std::to_string(grid.y) +
         " blocks of " + std::to_string(threads) + " threads and " + std::to_string(sharedBytes) +
         " bytes of shared memory";
}

}  // namespace

Launcher::Launcher(cuda::Context& context)
    : context_(context),
      module_(context),
      status_(context, kStatusBytes),
      statusOnHost_(context, kStatusBytes),
      checked_(checkedByEnvironment()) {
  clearStatus();
}

void Launcher::clearStatus() {
  context_.check(context_.api().cuMemsetD32Async(pointer(status_), 0, kStatusBytes / 4, context_.stream()),
                 "clearing the status");
}

void Launcher::launchWith(std::string_view name, Dim grid, uint32_t threads, const void* params, uint32_t sharedBytes) {
  if (grid.x == 0 || grid.y == 0) return;
  context_.enter();
  if (grid.y > kMaxGridY)
    throw Error("ENGINE", describe(name, grid, threads, sharedBytes) + ": too many rows of blocks");
  cuda::Kernel& kernel = module_.kernel(name);
  const DriverApi& api = context_.api();
  const auto check = [&](CUresult result) {
    if (result != CUDA_SUCCESS) context_.fail(result, describe(name, grid, threads, sharedBytes));
  };
  if (sharedBytes > kernel.sharedBytes) {
    check(api.cuFuncSetAttribute(kernel.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                 static_cast<int>(sharedBytes)));
    kernel.sharedBytes = sharedBytes;
  }
  void* arguments[] = {const_cast<void*>(params)};
  check(api.cuLaunchKernel(kernel.function, grid.x, grid.y, 1, threads, 1, 1, sharedBytes, context_.stream(), arguments,
                           nullptr));
  if (checked_) throwReport(name);  // the op may still report from launches to come
}

int32_t Launcher::errorCode(ErrorOf error) {
  const auto index = static_cast<size_t>(lastCode_ % kMaxErrorCodes);
  if (index == errors_.size()) {
    errors_.push_back(std::move(error));
  } else {
    errors_[index] = std::move(error);
  }
  lastCode_ = lastCode_ % INT32_MAX + 1;
  return lastCode_;
}

void Launcher::check() {
  throwReport();
  forgetCodes();
}

void Launcher::forgetCodes() {
  errors_.clear();
  lastCode_ = 0;
}

void Launcher::throwReport(std::string_view kernel) {
  context_.enter();
  const bool mayReport = lastCode_ != 0;
  if (mayReport) {
    context_.check(
        context_.api().cuMemcpyDtoHAsync(statusOnHost_.address(), pointer(status_), kStatusBytes, context_.stream()),
        "reading the status");
  }
  context_.synchronize(kernel);
  if (!mayReport) return;
  const auto* status = static_cast<const int32_t*>(statusOnHost_.address());
  const int32_t code = status[0];
  const int32_t value = status[1];
  if (code == 0) return;
  const bool known = code > 0 && code <= lastCode_ && code > lastCode_ - kMaxErrorCodes;
  const ErrorOf errorOf = known ? errors_[static_cast<size_t>((code - 1) % kMaxErrorCodes)] : nullptr;
  forgetCodes();
  clearStatus();
  if (!errorOf)
    throw Error("INVALID_ARGUMENT", "An op met the wrong value " + std::to_string(value) + " in an operand");
  throw errorOf(value);
}

void* Launcher::scratchBytes(int slot, int64_t bytes) {
  cuda::DeviceMemory& memory = scratch_.at(static_cast<size_t>(slot));
  if (memory.bytes() < bytes) {
    memory = {};  // first, so that the pool can give the same memory again
    memory = cuda::DeviceMemory(context_, bytes + bytes / 4);
  }
  return memory.address();
}

}  // namespace dp_moe
