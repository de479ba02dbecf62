#include "module.h"

#include <dlfcn.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

namespace dp_moe::cuda {

namespace {

constexpr const char* kVariable = "DP_MOE_CUDA_FATBIN";

std::string fatbinPath() {
  const char* chosen = std::getenv(kVariable);
  if (chosen != nullptr && *chosen != '\0') return chosen;
  Dl_info info;
  const std::string addon =
      dladdr(reinterpret_cast<void*>(&fatbinPath), &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
  return addon.substr(0, addon.rfind('/') + 1) + "dp-moe.fatbin";
}

std::vector<char> readImage(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw Error("BACKEND_UNAVAILABLE",
                "Found no CUDA kernels at " + path +
                    ": this build of dp-moe has none. Install a prebuilt package, build with nvcc "
                    "(docs/cuda.md), or name a fatbin in " +
                    kVariable);
  }
  std::vector<char> image{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  image.push_back('\0');  // an image that is text ends with it
  return image;
}

}  // namespace

Module::Module(Context& context) : context_(context) {
  const std::string path = fatbinPath();
  const std::vector<char> image = readImage(path);
  context_.enter();
  const CUresult result = context_.api().cuModuleLoadData(&module_, image.data());
  if (result == CUDA_SUCCESS) return;
  const DeviceDescription& device = context_.description();
  const std::string capability = std::to_string(device.major) + "." + std::to_string(device.minor);
  const std::string subject = context_.name() + " (" + device.name + ", compute capability " + capability + ")";
  const std::string reason = " (" + context_.library().textOf(result) + ")";
  switch (result) {
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
      throw Error("BACKEND_UNAVAILABLE", subject + " cannot be used: " + path + " has no kernels for it" + reason +
                                             "; they need compute capability 8.0 or newer");
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
      throw Error("BACKEND_UNAVAILABLE", subject + " cannot be used: the driver (CUDA " +
                                             versionText(context_.library().version()) + ") is too old for " + path +
                                             reason + "; install a newer NVIDIA driver");
    case CUDA_ERROR_INVALID_IMAGE:
    case CUDA_ERROR_INVALID_PTX:
      throw Error("BACKEND_UNAVAILABLE", subject + " cannot be used: " + path + " is damaged or no fatbin" + reason +
                                             "; install dp-moe again");
    default:
      context_.fail(result, "loading the kernels of " + path);
  }
}

Module::~Module() {
  if (context_.tryEnter()) context_.api().cuModuleUnload(module_);
}

Kernel& Module::kernel(std::string_view name) {
  if (const auto found = kernels_.find(name); found != kernels_.end()) return found->second;
  const std::string key(name);
  CUfunction function = nullptr;
  const CUresult result = context_.api().cuModuleGetFunction(&function, module_, key.c_str());
  if (result == CUDA_ERROR_NOT_FOUND) {
    throw Error("ENGINE", "The CUDA kernels at " + fatbinPath() + " have none named " + key +
                              "; they are of another version of dp-moe: build or install both again");
  }
  if (result != CUDA_SUCCESS) context_.fail(result, "loading the kernel " + key);
  return kernels_.emplace(key, Kernel{function}).first->second;
}

}  // namespace dp_moe::cuda
