#include "context.h"

namespace dp_moe::cuda {

namespace {

/// Failures after which the driver refuses everything else in this process.
bool losesDevice(CUresult result) {
  switch (result) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_TENSOR_MEMORY_LEAK:
    case CUDA_ERROR_EXTERNAL_DEVICE:
    case CUDA_ERROR_UNKNOWN:
      return true;
    default:
      return result >= CUDA_ERROR_HARDWARE_STACK_ERROR && result <= CUDA_ERROR_LAUNCH_FAILED;
  }
}

DeviceDescription select(const Library& library, int index) {
  const std::vector<DeviceDescription> devices = describeDevices(library);
  if (index >= static_cast<int>(devices.size())) {
    const std::string count = std::to_string(devices.size());
    throw Error("BACKEND_UNAVAILABLE", "Expected a CUDA device with a number below " + count +
                                           ", got 'cuda:" + std::to_string(index) + "': the driver sees " + count +
                                           (devices.size() == 1 ? " device" : " devices"));
  }
  return devices[static_cast<size_t>(index)];
}

}  // namespace

Context::Context(int index) : description_(select(library_, index)), name_("cuda:" + std::to_string(index)) {
  const auto require = [&](CUresult result, const char* tried) {
    if (result == CUDA_SUCCESS) return;
    release();
    throw Error("BACKEND_UNAVAILABLE", name_ + " (" + description_.name + ") cannot be used: " + tried + " failed (" +
                                           library_.textOf(result) + "); does nvidia-smi show it as free?");
  };
  require(api().cuDeviceGet(&device_, index), "finding the device");
  int pools = 0;
  require(api().cuDeviceGetAttribute(&pools, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, device_),
          "asking what it can");
  if (pools == 0) {
    throw Error("BACKEND_UNAVAILABLE", name_ + " (" + description_.name +
                                           ") cannot be used: its driver has no memory pools on this system, which a "
                                           "virtual device may lack; open 'cpu' instead");
  }
  require(api().cuDevicePrimaryCtxRetain(&context_, device_), "opening a context");
  require(api().cuCtxSetCurrent(context_), "entering the context");
  require(api().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "making a stream");
}

Context::~Context() { release(); }

void Context::release() noexcept {
  if (context_ == nullptr) return;
  api().cuCtxSetCurrent(context_);
  if (stream_ != nullptr) api().cuStreamDestroy(stream_);
  api().cuCtxSetCurrent(nullptr);
  api().cuDevicePrimaryCtxRelease(device_);
  context_ = nullptr;
}

void Context::enter() {
  if (lost_) {
    std::lock_guard lock(mutex_);
    throw *loss_;
  }
  check(api().cuCtxSetCurrent(context_), "entering the context");
}

bool Context::tryEnter() noexcept { return !lost_ && api().cuCtxSetCurrent(context_) == CUDA_SUCCESS; }

void Context::fail(CUresult result, const std::string& tried) {
  const std::string failed = name_ + ": " + tried + " failed (" + library_.textOf(result) + ")";
  if (losesDevice(result)) {
    std::lock_guard lock(mutex_);
    if (!loss_) {
      loss_.emplace("DEVICE_LOST", failed +
                                       ". The device is lost to this process, with its tensors: start the process "
                                       "again and resume from the last checkpoint");
      lost_ = true;
    }
    throw *loss_;
  }
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    throw Error("OUT_OF_MEMORY", failed + "; use a smaller memory budget or batch, or dispose tensors");
  }
  throw Error("ENGINE", failed);
}

void Context::synchronize(std::string_view kernel) {
  enter();
  const CUresult result = api().cuStreamSynchronize(stream_);
  if (result == CUDA_SUCCESS) return;
  fail(result, kernel.empty() ? "running an op (DP_MOE_CUDA_SYNC=1 tells which)" : "running " + std::string(kernel));
}

}  // namespace dp_moe::cuda
