#include <unistd.h>

#include "engine_calls.h"
#include "environment.h"

#if defined(__APPLE__)
#include <sys/random.h>
#endif

namespace dp_moe {

namespace {

constexpr size_t kKeyBytes = 32;

/// randomKey() -> Uint8Array(32), from the operating system's generator.
Napi::Value randomKey(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&](Environment&) -> Napi::Value {
    auto key = Napi::Uint8Array::New(info.Env(), kKeyBytes);
    if (getentropy(key.Data(), kKeyBytes) != 0) {
      throw Error("ENGINE", "The operating system gave no random numbers for a key");
    }
    return key;
  });
}

}  // namespace

void exportRandomCalls(Napi::Env env, Napi::Object exports) {
  exports.Set("randomKey", Napi::Function::New<randomKey>(env, "randomKey"));
}

}  // namespace dp_moe
