#pragma once

#include <napi.h>

namespace dp_moe {

/// Devices, tensors' memory, transfers and waits.
void exportEngineCalls(Napi::Env env, Napi::Object exports);

/// What the CUDA driver sees.
void exportCudaCalls(Napi::Env env, Napi::Object exports);

/// Sampling and keys.
void exportRandomCalls(Napi::Env env, Napi::Object exports);

}  // namespace dp_moe
