#include "environment.h"

#include <algorithm>
#include <utility>

namespace dp_moe {

Environment::Environment(Napi::Env env) : env_(env) {
  wakeup_ = Wakeup::New(env, "dp-moe", 0, 1, this);
  wakeup_.Unref(env);  // held only while promises are open, so that an idle engine does not keep the process alive
  // Added after the wakeup's own hook and so run before it: no stream may call a wakeup that is gone.
  napi_add_env_cleanup_hook(env, [](void* self) { static_cast<Environment*>(self)->close(); }, this);
}

Environment::~Environment() { close(); }

void Environment::close() {
  if (std::exchange(closed_, true)) return;
  engine.closeAll();
  pending_.clear();
  wakeup_.Release();
}

Napi::Error Environment::makeError(const Error& error) const {
  if (errorFactory_.IsEmpty()) {
    Napi::Error plain = Napi::Error::New(env_, error.what());
    plain.Set("code", Napi::String::New(env_, error.code()));
    return plain;
  }
  const Napi::Value made =
      errorFactory_.Call({Napi::String::New(env_, error.code()), Napi::String::New(env_, error.what())});
  return Napi::Error(env_, made);
}

Environment::Request Environment::open(Napi::Object value) {
  if (pending_.empty()) wakeup_.Ref(env_);
  const uint64_t id = nextId_++;
  const auto deferred = Napi::Promise::Deferred::New(env_);
  pending_.emplace(id, Pending{deferred, value.IsEmpty() ? Napi::ObjectReference() : Napi::Persistent(value)});
  return {id, deferred.Promise()};
}

void Environment::settle(uint64_t id, std::optional<Error> failure) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    first = settlements_.empty();
    settlements_.push_back({id, std::move(failure)});
  }
  if (first) wakeup_.NonBlockingCall();
}

void Environment::settleAll(Napi::Env env, Napi::Function, Environment* self, void*) {
  if (static_cast<napi_env>(env) == nullptr || self->closed_) return;
  std::vector<Settlement> settlements;
  {
    std::lock_guard lock(self->mutex_);
    settlements.swap(self->settlements_);
  }
  try {
    for (const Settlement& settlement : settlements) self->settleNow(settlement);
    if (self->pending_.empty()) self->wakeup_.Unref(env);
  } catch (const Napi::Error&) {
    // A worker that is being terminated runs no more JavaScript: nobody can see these promises.
  }
}

void Environment::settleNow(const Settlement& settlement) {
  const auto entry = pending_.find(settlement.id);
  const Pending pending = std::move(entry->second);
  pending_.erase(entry);
  if (settlement.failure) {
    pending.deferred.Reject(makeError(*settlement.failure).Value());
  } else {
    pending.deferred.Resolve(pending.value.IsEmpty() ? env_.Undefined() : pending.value.Value());
  }
}

Handle Environment::allocate(int deviceId, DType dtype, int64_t count) {
  const int64_t before = engine.memoryUse().live;
  const Handle handle = engine.allocate(deviceId, dtype, count);
  collectedBytes_ = std::max<int64_t>(0, collectedBytes_ - (engine.memoryUse().live - before));
  reportMemory();
  return handle;
}

void Environment::collect(Handle handle) {
  const int64_t before = engine.memoryUse().live;
  engine.free(handle);
  collectedBytes_ += before - engine.memoryUse().live;
  reportMemory();
}

void Environment::closeDevice(int id) {
  engine.closeDevice(id);
  collectedBytes_ = std::min(collectedBytes_, engine.memoryUse().pooled);
  reportMemory();
}

void Environment::reportMemory() {
  const int64_t bytes = engine.memoryUse().reserved - collectedBytes_;
  if (bytes == reportedBytes_) return;
  Napi::MemoryManagement::AdjustExternalMemory(env_, bytes - reportedBytes_);
  reportedBytes_ = bytes;
}

}  // namespace dp_moe
