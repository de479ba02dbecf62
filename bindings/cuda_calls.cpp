#include <string>

#include "engine_calls.h"
#include "environment.h"
#include "library.h"

namespace dp_moe {

namespace {

/// cudaDevices() -> { driver, version, devices: [{ name, computeCapability, memory }] }. Throws BACKEND_UNAVAILABLE.
Napi::Value cudaDevices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&](Environment&) -> Napi::Value {
    const cuda::Library library;
    Napi::Array devices = Napi::Array::New(env);
    for (const cuda::DeviceDescription& description : describeDevices(library)) {
      Napi::Object device = Napi::Object::New(env);
      device.Set("name", description.name);
      device.Set("computeCapability", std::to_string(description.major) + "." + std::to_string(description.minor));
      device.Set("memory", static_cast<double>(description.memory));
      devices.Set(devices.Length(), device);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("driver", library.path());
    result.Set("version", cuda::versionText(library.version()));
    result.Set("devices", devices);
    return result;
  });
}

}  // namespace

void exportCudaCalls(Napi::Env env, Napi::Object exports) {
  exports.Set("cudaDevices", Napi::Function::New<cudaDevices>(env, "cudaDevices"));
}

}  // namespace dp_moe
