#pragma once

#include <napi.h>

#include <cstdint>
#include <mutex>
#include <new>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine.h"
#include "error.h"

namespace dp_moe {

/// What one JavaScript environment (the main thread or a worker) owns: its engine and its open promises.
class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  Engine engine;

  /// A constructor (code, message) => Error for what the addon throws.
  void setErrorFactory(Napi::Function factory) { errorFactory_ = Napi::Persistent(factory); }
  Napi::Error makeError(const Error& error) const;

  /// A promise that settle(id, ...) resolves with `value` (undefined when empty) or rejects.
  struct Request {
    uint64_t id;
    Napi::Promise promise;
  };
  Request open(Napi::Object value);
  /// Callable from any thread.
  void settle(uint64_t id, std::optional<Error> failure);

  Handle allocate(int deviceId, DType dtype, int64_t count);
  /// Frees what the garbage collector found.
  void collect(Handle handle);
  void closeDevice(int id);

 private:
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference value;
  };
  struct Settlement {
    uint64_t id;
    std::optional<Error> failure;
  };
  void settleNow(const Settlement& settlement);
  static void settleAll(Napi::Env env, Napi::Function, Environment* self, void*);
  using Wakeup = Napi::TypedThreadSafeFunction<Environment, void, &Environment::settleAll>;

  Napi::Env env_;
  Napi::FunctionReference errorFactory_;
  Wakeup wakeup_;
  uint64_t nextId_ = 0;
  std::unordered_map<uint64_t, Pending> pending_;
  std::mutex mutex_;
  std::vector<Settlement> settlements_;  // guarded by mutex_
  int64_t reportedBytes_ = 0;
  int64_t collectedBytes_ = 0;  // pooled blocks that the garbage collector freed and nobody took since
  bool closed_ = false;

  void close();
  /// Tells V8 how many bytes the engine holds, so that dropped tensors are collected in time. Pooled blocks count, or
  /// every training step would look like a leak; what the collector freed does not, or it would see no success.
  void reportMemory();
};

/// Runs f and turns an engine failure into a JavaScript exception.
template <class F>
auto guarded(Napi::Env env, F&& f) {
  try {
    return f(Environment::of(env));
  } catch (const Error& error) {
    throw Environment::of(env).makeError(error);
  } catch (const std::bad_alloc&) {
    throw Environment::of(env).makeError({"OUT_OF_MEMORY", "The engine found no memory on the host"});
  }
}

}  // namespace dp_moe
