#include <napi.h>

#include "engine_calls.h"
#include "environment.h"
#include "op.h"

namespace dp_moe {

namespace {

/// signatures() -> { op: kinds of its arguments }, for the test that holds lib/engine/signatures.ts to them.
Napi::Value signatures(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  for (const OpBinding& op : allOps()) {
    const std::vector<std::string> kinds = op.kinds();
    Napi::Array list = Napi::Array::New(env, kinds.size());
    for (uint32_t i = 0; i < kinds.size(); ++i) list.Set(i, kinds[i]);
    result.Set(op.name, list);
  }
  return result;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  exportEngineCalls(env, exports);
  exportCudaCalls(env, exports);
  exportRandomCalls(env, exports);
  exports.Set("signatures", Napi::Function::New<signatures>(env, "signatures"));
  Napi::Object ops = Napi::Object::New(env);
  for (const OpBinding& op : allOps()) {
    napi_value function = nullptr;
    const napi_status status =
        napi_create_function(env, op.name, NAPI_AUTO_LENGTH, op.callback, const_cast<char*>(op.name), &function);
    NAPI_THROW_IF_FAILED(env, status, exports);
    ops.Set(op.name, function);
  }
  exports.Set("ops", ops);
  return exports;
}

}  // namespace

NODE_API_MODULE(dp_moe, initialize)

}  // namespace dp_moe
