#include "engine_calls.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "environment.h"

namespace dp_moe {

namespace {

int64_t toInteger(const Napi::Value& value, const std::string& what) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(std::abs(number) <= 9007199254740991.0) || number != std::trunc(number)) {
    throw Error("INVALID_ARGUMENT", "Expected an integer for " + what);
  }
  return static_cast<int64_t>(number);
}

int64_t integer(const Napi::CallbackInfo& info, size_t index) {
  return toInteger(info[index], "argument " + std::to_string(index));
}

int64_t option(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  return value.IsUndefined() ? 0 : toInteger(value, name);
}

napi_typedarray_type arrayTypeOf(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return napi_float32_array;
    case DType::float64:
      return napi_float64_array;
    case DType::int32:
      return napi_int32_array;
    case DType::bfloat16:
      return napi_uint16_array;
  }
  throw Error("ENGINE", "An unknown dtype");
}

Napi::TypedArray newArray(Napi::Env env, DType dtype, int64_t count) {
  const auto length = static_cast<size_t>(count);
  switch (dtype) {
    case DType::float32:
      return Napi::Float32Array::New(env, length);
    case DType::float64:
      return Napi::Float64Array::New(env, length);
    case DType::int32:
      return Napi::Int32Array::New(env, length);
    case DType::bfloat16:
      return Napi::Uint16Array::New(env, length);
  }
  throw Error("ENGINE", "An unknown dtype");
}

void* elementAt(const TensorView& tensor, int64_t offset) {
  return static_cast<char*>(tensor.data) + offset * bytesPerElement(tensor.dtype);
}

void requirePart(const TensorView& tensor, int64_t offset, int64_t count) {
  if (offset < 0 || count < 0 || offset > tensor.count || count > tensor.count - offset) {
    throw Error("SHAPE_MISMATCH", "Expected a part of " + std::to_string(tensor.count) + " elements, got " +
                                      std::to_string(count) + " from " + std::to_string(offset) + " on");
  }
}

DType toDType(int64_t number, const std::string& what) {
  if (number < 0 || number >= kDTypes) throw Error("INVALID_ARGUMENT", "Expected a dtype as " + what);
  return static_cast<DType>(number);
}

/// openDevice(name, { threads, memoryLimit, precision }) -> { id, instructionSet, vectorWidth, threads }
Napi::Value openDevice(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&](Environment& environment) -> Napi::Value {
    const auto name = info[0].As<Napi::String>().Utf8Value();
    const auto options = info[1].As<Napi::Object>();
    const int id = environment.engine.openDevice(
        name, {static_cast<int>(option(options, "threads")), option(options, "memoryLimit"),
               toDType(option(options, "precision"), "precision")});
    const DeviceInfo& device = environment.engine.device(id).info();
    Napi::Object result = Napi::Object::New(env);
    result.Set("id", id);
    result.Set("instructionSet", device.instructionSet);
    result.Set("vectorWidth", device.vectorWidth);
    result.Set("threads", device.threads);
    return result;
  });
}

/// closeDevice(id)
void closeDevice(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&](Environment& environment) { environment.closeDevice(static_cast<int>(integer(info, 0))); });
}

/// allocate(device, dtype, count) -> handle
Napi::Value allocate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&](Environment& environment) -> Napi::Value {
    const Handle handle = environment.allocate(static_cast<int>(integer(info, 0)),
                                               toDType(integer(info, 1), "argument 1"), integer(info, 2));
    return Napi::Number::New(info.Env(), static_cast<double>(handle));
  });
}

/// alias(handle, offset, count) -> handle
Napi::Value alias(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&](Environment& environment) -> Napi::Value {
    const Handle handle = environment.engine.alias(integer(info, 0), integer(info, 1), integer(info, 2));
    return Napi::Number::New(info.Env(), static_cast<double>(handle));
  });
}

/// free(handle)
void free(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&](Environment& environment) { environment.engine.free(integer(info, 0)); });
}

/// collect(handle): free, for the finalizer of a dropped tensor
void collect(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&](Environment& environment) { environment.collect(integer(info, 0)); });
}

/// upload(handle, typedArray, offset): the bytes are read now and written in stream order.
void upload(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&](Environment& environment) {
    const TensorView tensor = environment.engine.view(integer(info, 0));
    if (!info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != arrayTypeOf(tensor.dtype)) {
      throw Error("SHAPE_MISMATCH", std::string("Expected a typed array of ") + nameOf(tensor.dtype));
    }
    const auto array = info[1].As<Napi::TypedArray>();
    const int64_t offset = integer(info, 2);
    requirePart(tensor, offset, static_cast<int64_t>(array.ElementLength()));
    const size_t bytes = array.ByteLength();
    if (bytes == 0) return;
    const std::shared_ptr<std::byte[]> staged(new std::byte[bytes]);
    std::memcpy(staged.get(), static_cast<const std::byte*>(array.ArrayBuffer().Data()) + array.ByteOffset(), bytes);
    tensor.device->stream().enqueue([memory = &tensor.device->memory(), to = elementAt(tensor, offset), staged, bytes] {
      memory->upload(to, staged.get(), static_cast<int64_t>(bytes));
    });
  });
}

/// fill(handle, value)
void fill(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&](Environment& environment) {
    const TensorView tensor = environment.engine.view(integer(info, 0));
    if (!info[1].IsNumber()) throw Error("INVALID_ARGUMENT", "Expected a number as argument 1");
    const double value = info[1].As<Napi::Number>().DoubleValue();
    if (tensor.dtype == DType::int32 && value != static_cast<double>(info[1].As<Napi::Number>().Int32Value())) {
      throw Error("INVALID_ARGUMENT", "Expected a 32-bit integer for an int32 tensor, got " + std::to_string(value));
    }
    tensor.device->stream().enqueue([memory = &tensor.device->memory(), tensor, value] {
      memory->fill(tensor.data, tensor.dtype, tensor.count, value);
    });
  });
}

/// copy(to, toOffset, from, fromOffset, count)
void copy(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&](Environment& environment) {
    const TensorView to = environment.engine.view(integer(info, 0));
    const TensorView from = environment.engine.view(integer(info, 2));
    if (to.device != from.device) throw Error("INVALID_ARGUMENT", "copy: the tensors are on different devices");
    if (to.dtype != from.dtype) {
      throw Error("SHAPE_MISMATCH",
                  std::string("copy: expected dtype ") + nameOf(to.dtype) + ", got " + nameOf(from.dtype));
    }
    const int64_t toOffset = integer(info, 1);
    const int64_t fromOffset = integer(info, 3);
    const int64_t count = integer(info, 4);
    requirePart(to, toOffset, count);
    requirePart(from, fromOffset, count);
    to.device->stream().enqueue([memory = &to.device->memory(), target = elementAt(to, toOffset),
                                 source = elementAt(from, fromOffset),
                                 bytes = count * bytesPerElement(to.dtype)] { memory->copy(target, source, bytes); });
  });
}

/// download(handle) -> Promise<typedArray>. The array exists from the start; the stream writes into it, no copy here.
Napi::Value download(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&](Environment& environment) -> Napi::Value {
    const TensorView tensor = environment.engine.view(integer(info, 0));
    const Napi::TypedArray array = newArray(env, tensor.dtype, tensor.count);
    void* to = array.ArrayBuffer().Data();
    const auto request = environment.open(array);
    tensor.device->stream().enqueueWait([&environment, id = request.id, memory = &tensor.device->memory(), to,
                                         from = tensor.data, bytes = array.ByteLength()](std::optional<Error> failure) {
      try {
        if (!failure && bytes > 0) memory->download(to, from, static_cast<int64_t>(bytes));
      } catch (const Error& error) {
        failure = error;
      }
      environment.settle(id, std::move(failure));
    });
    return request.promise;
  });
}

/// synchronize(device) -> Promise<void>
Napi::Value synchronize(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&](Environment& environment) -> Napi::Value {
    Device& device = environment.engine.device(static_cast<int>(integer(info, 0)));
    const auto request = environment.open(Napi::Object());
    device.stream().enqueueWait(
        [&environment, id = request.id](std::optional<Error> failure) { environment.settle(id, std::move(failure)); });
    return request.promise;
  });
}

/// memory(device) -> { live, peak, pooled, reserved } in bytes
Napi::Value memory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&](Environment& environment) -> Napi::Value {
    const MemoryUse use = environment.engine.device(static_cast<int>(integer(info, 0))).memoryUse();
    Napi::Object result = Napi::Object::New(env);
    result.Set("live", static_cast<double>(use.live));
    result.Set("peak", static_cast<double>(use.peak));
    result.Set("pooled", static_cast<double>(use.pooled));
    result.Set("reserved", static_cast<double>(use.reserved));
    return result;
  });
}

/// setErrorFactory((code, message) => Error)
void setErrorFactory(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).setErrorFactory(info[0].As<Napi::Function>());
}

}  // namespace

void exportEngineCalls(Napi::Env env, Napi::Object exports) {
  exports.Set("openDevice", Napi::Function::New<openDevice>(env, "openDevice"));
  exports.Set("closeDevice", Napi::Function::New<closeDevice>(env, "closeDevice"));
  exports.Set("allocate", Napi::Function::New<allocate>(env, "allocate"));
  exports.Set("alias", Napi::Function::New<alias>(env, "alias"));
  exports.Set("free", Napi::Function::New<free>(env, "free"));
  exports.Set("collect", Napi::Function::New<collect>(env, "collect"));
  exports.Set("upload", Napi::Function::New<upload>(env, "upload"));
  exports.Set("fill", Napi::Function::New<fill>(env, "fill"));
  exports.Set("copy", Napi::Function::New<copy>(env, "copy"));
  exports.Set("download", Napi::Function::New<download>(env, "download"));
  exports.Set("synchronize", Napi::Function::New<synchronize>(env, "synchronize"));
  exports.Set("memory", Napi::Function::New<memory>(env, "memory"));
  exports.Set("setErrorFactory", Napi::Function::New<setErrorFactory>(env, "setErrorFactory"));
}

}  // namespace dp_moe
