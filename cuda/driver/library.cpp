#include "library.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>

#include "error.h"

namespace dp_moe::cuda {

namespace {

constexpr const char* kVariable = "DP_MOE_CUDA_DRIVER";

std::string fileName() {
  const char* chosen = std::getenv(kVariable);
  return chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1";
}

[[noreturn]] void unavailable(const std::string& reason) { throw Error("BACKEND_UNAVAILABLE", reason); }

std::string loadedPath(void* function, const std::string& asked) {
  Dl_info info;
  return dladdr(function, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : asked;
}

std::string adviceFor(CUresult result) {
  switch (result) {
    case CUDA_ERROR_NO_DEVICE:
      return "the driver sees no device; is one in this machine, given to this container, and not hidden by "
             "CUDA_VISIBLE_DEVICES?";
    case CUDA_ERROR_STUB_LIBRARY:
      return "it is the stub that programs are linked with; put the driver's own libcuda first";
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
      return "the library and the kernel module are of different versions; restart the machine after an upgrade";
    default:
      return "does nvidia-smi work here?";
  }
}

}  // namespace

std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// The driver's own threads and exit handlers outlive a dlclose, so the library is opened with RTLD_NODELETE.
void Library::Close::operator()(void* handle) const { dlclose(handle); }

Library::Library() : path_(fileName()) {
  handle_.reset(dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
  if (!handle_) {
    const char* reason = dlerror();
    unavailable("Found no CUDA driver (" + std::string(reason == nullptr ? path_ : reason) +
                "). Install the NVIDIA driver, or name its library in " + kVariable + "; 'cpu' works without one");
  }
  const auto find = [this]<class Function>(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(dlsym(handle_.get(), symbol));
    return function != nullptr;
  };
  if (!find(api_.cuDriverGetVersion, "cuDriverGetVersion") || !find(api_.cuInit, "cuInit")) {
    unavailable(path_ + " is not a CUDA driver: it has no function cuInit. Let " + kVariable +
                " name a libcuda, or leave it out");
  }
  path_ = loadedPath(reinterpret_cast<void*>(api_.cuInit), path_);
  if (api_.cuDriverGetVersion(&version_) != CUDA_SUCCESS || version_ < kNeededVersion) {
    unavailable("The CUDA driver " + path_ + " is too old: it supports CUDA " + versionText(version_) +
                ", and the kernels need " + versionText(kNeededVersion) +
                ". Install an NVIDIA driver of version 580 or newer");
  }
#define DP_MOE_FIND(name, symbol, parameters)                                                                   \
  if (!find(api_.name, symbol)) {                                                                               \
    unavailable("The CUDA driver " + path_ + " has no function " + symbol + "; install a newer NVIDIA driver"); \
  }
  DP_MOE_DRIVER_FUNCTIONS(DP_MOE_FIND)
#undef DP_MOE_FIND
  if (const CUresult result = api_.cuInit(0); result != CUDA_SUCCESS) {
    unavailable("The CUDA driver " + path_ + " (CUDA " + versionText(version_) + ") does not start (" + textOf(result) +
                "): " + adviceFor(result));
  }
}

std::string Library::textOf(CUresult result) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (api_.cuGetErrorName(result, &name) != CUDA_SUCCESS || name == nullptr) return "error " + std::to_string(result);
  if (api_.cuGetErrorString(result, &text) != CUDA_SUCCESS || text == nullptr) return name;
  return std::string(name) + ": " + text;
}

std::vector<DeviceDescription> describeDevices(const Library& library) {
  const DriverApi& api = library.api();
  const auto check = [&](CUresult result) {
    if (result != CUDA_SUCCESS) unavailable("The CUDA driver does not describe its devices: " + library.textOf(result));
  };
  int count = 0;
  check(api.cuDeviceGetCount(&count));
  std::vector<DeviceDescription> devices;
  for (int index = 0; index < count; ++index) {
    CUdevice device = 0;
    check(api.cuDeviceGet(&device, index));
    const auto attribute = [&](int which) {
      int value = 0;
      check(api.cuDeviceGetAttribute(&value, which, device));
      return value;
    };
    std::array<char, 256> name{};
    check(api.cuDeviceGetName(name.data(), static_cast<int>(name.size()) - 1, device));
    size_t memory = 0;
    check(api.cuDeviceTotalMem(&memory, device));
    devices.push_back({name.data(), attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
                       attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR), static_cast<int64_t>(memory),
                       attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
                       attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)});
  }
  return devices;
}

}  // namespace dp_moe::cuda
