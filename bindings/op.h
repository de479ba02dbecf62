#pragma once

#include <napi.h>

#include <cmath>
#include <string>
#include <vector>

#include "backend.h"
#include "environment.h"
#include "reflect.h"

// A binding is op<&Backend::name>("name"): the arguments are the fields of the op's parameter struct, after the device.

namespace dp_moe {

/// One op as the addon exports it.
struct OpBinding {
  const char* name;
  napi_callback callback;
  std::vector<std::string> (*kinds)();
};

namespace binding {

/// Where an argument stands, for messages.
struct Place {
  const char* op;
  size_t index;  // 0 is the first field

  [[noreturn]] void fail(const char* code, const std::string& problem) const {
    throw Error(code, std::string(op) + ": argument " + std::to_string(index) + ": " + problem);
  }
};

inline double toNumber(napi_env env, napi_value value, const Place& place) {
  double number = 0;
  if (napi_get_value_double(env, value, &number) != napi_ok) place.fail("INVALID_ARGUMENT", "expected a number");
  return number;
}

inline int64_t toInteger(napi_env env, napi_value value, const Place& place) {
  const double number = toNumber(env, value, place);
  if (!(std::abs(number) <= 9007199254740991.0) || number != std::trunc(number)) {
    place.fail("INVALID_ARGUMENT", "expected an integer, got " + std::to_string(number));
  }
  return static_cast<int64_t>(number);
}

/// How a field of a parameter struct is named in signatures() and made from an argument.
template <class Field>
struct Argument;

template <>
struct Argument<int64_t> {
  static std::string kind() { return "int64"; }
  static int64_t convert(napi_env env, napi_value value, Device&, const Place& place) {
    return toInteger(env, value, place);
  }
};

template <>
struct Argument<int32_t> {
  static std::string kind() { return "int32"; }
  static int32_t convert(napi_env env, napi_value value, Device&, const Place& place) {
    const int64_t integer = toInteger(env, value, place);
    if (integer != static_cast<int32_t>(integer)) place.fail("INVALID_ARGUMENT", "expected a 32-bit integer");
    return static_cast<int32_t>(integer);
  }
};

template <>
struct Argument<float> {
  static std::string kind() { return "float"; }
  static float convert(napi_env env, napi_value value, Device&, const Place& place) {
    return static_cast<float>(toNumber(env, value, place));
  }
};

template <>
struct Argument<double> {
  static std::string kind() { return "double"; }
  static double convert(napi_env env, napi_value value, Device&, const Place& place) {
    return toNumber(env, value, place);
  }
};

template <>
struct Argument<bool> {
  static std::string kind() { return "bool"; }
  static bool convert(napi_env env, napi_value value, Device&, const Place& place) {
    bool flag = false;
    if (napi_get_value_bool(env, value, &flag) != napi_ok) place.fail("INVALID_ARGUMENT", "expected a boolean");
    return flag;
  }
};

template <>
struct Argument<Activation> {
  static std::string kind() { return "activation"; }
  static Activation convert(napi_env env, napi_value value, Device&, const Place& place) {
    const int64_t number = toInteger(env, value, place);
    if (number < 0 || number > static_cast<int64_t>(Activation::tanh)) {
      place.fail("INVALID_ARGUMENT", "expected an activation, got " + std::to_string(number));
    }
    return static_cast<Activation>(number);
  }
};

/// Input and Output: the memory of a handle, which must be of this element type and device; 0 is "left out".
template <class Operand, class T>
Operand toOperand(napi_env env, napi_value value, Device& device, const Place& place) {
  const Handle handle = toInteger(env, value, place);
  if (handle == 0) return {nullptr, 0};
  const TensorView tensor = Environment::of(env).engine.view(handle);
  if (tensor.device != &device) place.fail("INVALID_ARGUMENT", "the tensor is on another device");
  if (tensor.dtype != dtypeOf<T>) {
    place.fail("SHAPE_MISMATCH", std::string("expected dtype ") + nameOf(dtypeOf<T>) + ", got " + nameOf(tensor.dtype));
  }
  return {static_cast<T*>(tensor.data), tensor.count};
}

template <class T>
struct Argument<Input<T>> {
  static std::string kind() { return std::string("input:") + nameOf(dtypeOf<T>); }
  static Input<T> convert(napi_env env, napi_value value, Device& device, const Place& place) {
    return toOperand<Input<T>, T>(env, value, device, place);
  }
};

template <class T>
struct Argument<Output<T>> {
  static std::string kind() { return std::string("output:") + nameOf(dtypeOf<T>); }
  static Output<T> convert(napi_env env, napi_value value, Device& device, const Place& place) {
    return toOperand<Output<T>, T>(env, value, device, place);
  }
};

template <class Operand>
struct RealArgument {
  static Operand convert(napi_env env, napi_value value, Device& device, const Place& place) {
    const Handle handle = toInteger(env, value, place);
    if (handle != 0 && Environment::of(env).engine.view(handle).dtype == DType::bfloat16) {
      return toOperand<typename Operand::template Of<bfloat16>, bfloat16>(env, value, device, place);
    }
    return toOperand<typename Operand::template Of<float>, float>(env, value, device, place);
  }
};

template <>
struct Argument<RealInput> : RealArgument<RealInput> {
  static std::string kind() { return "input:real"; }
};

template <>
struct Argument<RealOutput> : RealArgument<RealOutput> {
  static std::string kind() { return "output:real"; }
};

template <class Field>
using ArgumentFor = Argument<std::remove_cvref_t<Field>>;

template <class Params>
std::vector<std::string> kindsOf() {
  Params params{};
  return withFields(params,
                    [](auto&... fields) { return std::vector<std::string>{ArgumentFor<decltype(fields)>::kind()...}; });
}

template <class Params>
Params toParams(napi_env env, const napi_value* arguments, Device& device, const char* op) {
  Params params{};
  size_t index = 0;
  const auto assign = [&](auto& field) {
    field = ArgumentFor<decltype(field)>::convert(env, arguments[index], device, Place{op, index});
    ++index;
  };
  withFields(params, [&](auto&... fields) { (assign(fields), ...); });
  return params;
}

template <auto Method>
struct Caller;

template <class Params, void (Backend::*Method)(const Params&)>
struct Caller<Method> {
  static std::vector<std::string> kinds() { return kindsOf<Params>(); }

  /// (device, field, ...): checks the arguments now, runs the op in its turn on the stream.
  static napi_value call(napi_env env, napi_callback_info info) {
    constexpr size_t expected = fieldCount<Params> + 1;
    napi_value arguments[expected];
    size_t count = expected;
    void* name = nullptr;
    napi_get_cb_info(env, info, &count, arguments, nullptr, &name);
    const char* op = static_cast<const char*>(name);
    try {
      guarded(env, [&](Environment& environment) {
        if (count != expected) {
          throw Error("INVALID_ARGUMENT", std::string(op) + ": expected " + std::to_string(expected) +
                                              " arguments, got " + std::to_string(count));
        }
        Device& device = environment.engine.device(static_cast<int>(toInteger(env, arguments[0], Place{op, 0})));
        const Params params = toParams<Params>(env, arguments + 1, device, op);
        device.stream().enqueue([backend = &device.backend(), params] { (backend->*Method)(params); });
      });
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    }
    return nullptr;
  }
};

}  // namespace binding

template <auto Method>
OpBinding op(const char* name) {
  return {name, &binding::Caller<Method>::call, &binding::Caller<Method>::kinds};
}

/// Every op of the backend.
const std::vector<OpBinding>& allOps();

}  // namespace dp_moe
