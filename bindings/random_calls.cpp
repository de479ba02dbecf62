#include <cmath>
#include <cstring>
#include <string>

#include "engine_calls.h"
#include "environment.h"
#include "random/os_key.h"
#include "random/poisson.h"

namespace dp_moe {

namespace {

constexpr size_t kKeyBytes = 32;

double number(const Napi::Value& value, const char* what) {
  if (!value.IsNumber()) throw Error("INVALID_ARGUMENT", std::string("poissonSample: expected a number for ") + what);
  return value.As<Napi::Number>().DoubleValue();
}

int64_t natural(const Napi::Value& value, const char* what) {
  const double given = number(value, what);
  if (!(given >= 0 && given <= 9007199254740991.0) || given != std::trunc(given)) {
    throw Error("INVALID_ARGUMENT",
                std::string("poissonSample: expected an integer >= 0 for ") + what + ", got " + std::to_string(given));
  }
  return static_cast<int64_t>(given);
}

/// randomKey() -> Uint8Array(32), from the operating system's generator.
Napi::Value newRandomKey(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&](Environment&) -> Napi::Value {
    auto key = Napi::Uint8Array::New(info.Env(), kKeyBytes);
    randomKey(key.Data());
    return key;
  });
}

/// poissonSample(key, step, population, sampleRate) -> Int32Array of the positions drawn, rising.
Napi::Value samplePositions(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&](Environment&) -> Napi::Value {
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array ||
        info[0].As<Napi::TypedArray>().ByteLength() != kKeyBytes) {
      throw Error("INVALID_ARGUMENT", "poissonSample: expected a key of 32 bytes");
    }
    const auto bytes = info[0].As<Napi::Uint8Array>();
    uint32_t key[kKeyBytes / 4];
    for (size_t word = 0; word < kKeyBytes / 4; ++word) {
      const uint8_t* at = bytes.Data() + 4 * word;
      key[word] = at[0] | at[1] << 8 | at[2] << 16 | static_cast<uint32_t>(at[3]) << 24;
    }
    const std::vector<int32_t> positions = poissonSample(key, static_cast<uint64_t>(natural(info[1], "step")),
                                                         natural(info[2], "population"), number(info[3], "sampleRate"));
    auto result = Napi::Int32Array::New(env, positions.size());
    if (!positions.empty()) std::memcpy(result.Data(), positions.data(), positions.size() * sizeof(int32_t));
    return result;
  });
}

}  // namespace

void exportRandomCalls(Napi::Env env, Napi::Object exports) {
  exports.Set("randomKey", Napi::Function::New<newRandomKey>(env, "randomKey"));
  exports.Set("poissonSample", Napi::Function::New<samplePositions>(env, "poissonSample"));
}

}  // namespace dp_moe
