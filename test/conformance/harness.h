#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "backend.h"
#include "error.h"
#include "memory.h"

// The conformance suite: every op of a Backend against a float64 reference. A test is a function registered with
// CONFORMANCE_TEST; it runs on the CPU (every instruction set with 1, 2 and 3 threads) or on a CUDA device, real or
// emulated (with several schedules), and fails by throwing. Operands live in the backend's memory, behind guards that
// show a write past their end.

namespace dp_moe::conformance {

/// A failed check.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The parts as one text.
template <class... Parts>
std::string label(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

/// Reproducible test data.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t bits();
  double uniform(double low, double high);
  double normal();
  int32_t below(int32_t limit);  // in [0, limit)
  std::vector<float> normals(int64_t count, double scale = 1);

 private:
  uint64_t state_;
};

/// Memory of a backend for one operand, with guard bytes behind it where nobody else looks for overruns.
class Block {
 public:
  Block(Memory& memory, int64_t guardBytes, const void* initial, int64_t bytes);
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();
  void* address() const { return address_; }
  void read(void* to) const;  // throws Failure when a guard was overwritten

 private:
  Memory& memory_;
  void* address_;
  int64_t bytes_;
  int64_t guardBytes_;
};

/// What activations are stored as.
template <class T>
inline constexpr bool isReal = std::is_same_v<T, float> || std::is_same_v<T, bfloat16>;

template <class T>
std::vector<T> fromFloats(const std::vector<float>& values) {
  static_assert(isReal<T>);
  std::vector<T> result;
  for (const float value : values) {
    if constexpr (std::is_same_v<T, bfloat16>) {
      result.push_back(toBfloat16(value));
    } else {
      result.push_back(value);
    }
  }
  return result;
}

template <class T>
std::vector<float> toFloats(const std::vector<T>& values) {
  static_assert(isReal<T>);
  std::vector<float> result;
  for (const T value : values) {
    if constexpr (std::is_same_v<T, bfloat16>) {
      result.push_back(toFloat(value));
    } else {
      result.push_back(value);
    }
  }
  return result;
}

/// The values as T stores them: what a reference must start from.
template <class T>
std::vector<float> rounded(const std::vector<float>& values) {
  return toFloats(fromFloats<T>(values));
}

/// The most by which storing as T changes a value, relative to it; 0 for float, which is what the ops compute in.
template <class T>
inline constexpr double storageError = std::is_same_v<T, bfloat16> ? 0x1p-8 : 0;

template <class T>
class Tensor {
 public:
  Tensor(Memory& memory, int64_t guardBytes, const std::vector<T>& values)
      : size_(static_cast<int64_t>(values.size())),
        block_(std::make_shared<Block>(memory, guardBytes, values.data(), size_ * static_cast<int64_t>(sizeof(T)))) {}
  operator Input<T>() const { return {static_cast<const T*>(block_->address()), size_}; }
  operator Output<T>() const { return {static_cast<T*>(block_->address()), size_}; }
  operator RealInput() const
    requires isReal<T>
  {
    return Input<T>(*this);
  }
  operator RealOutput() const
    requires isReal<T>
  {
    return Output<T>(*this);
  }
  std::vector<T> values() const {
    std::vector<T> result(static_cast<size_t>(size_));
    block_->read(result.data());
    return result;
  }
  std::vector<float> floats() const
    requires isReal<T>
  {
    return toFloats(values());
  }

 private:
  int64_t size_;
  std::shared_ptr<Block> block_;
};

/// What a backend is, for tests.
struct Traits {
  std::string instructionSet;
  bool bfloat16 = false;    // whether it stores bfloat16
  bool emulated = false;    // an emulated device: slow
  int64_t guardBytes = 64;  // behind every operand
};

/// What a test runs on.
class Context {
 public:
  Context(Backend& backend, Memory& memory, Traits traits, std::map<std::string, std::vector<uint8_t>>& seen)
      : backend_(backend), memory_(memory), traits_(std::move(traits)), seen_(seen) {}

  Backend& backend() const { return backend_; }
  const std::string& instructionSet() const { return traits_.instructionSet; }
  /// Whether the op runs on an emulated device, where a case must be small to end in time.
  bool emulated() const { return traits_.emulated; }
  /// `full`, or `small` on an emulated device.
  template <class T>
  T sized(T full, T small) const {
    return traits_.emulated ? small : full;
  }

  template <class T>
  Tensor<T> tensor(const std::vector<T>& values) const {
    return Tensor<T>(memory_, traits_.guardBytes, values);
  }
  /// Rounded to T.
  template <class T>
    requires std::is_same_v<T, bfloat16>
  Tensor<T> tensor(const std::vector<float>& values) const {
    return tensor(fromFloats<T>(values));
  }
  /// Runs test.operator()<T>() for each T that activations can be stored as: float, and bfloat16 where it is stored.
  template <class Test>
  void forEachReal(const Test& test) const {
    test.template operator()<float>();
    if (traits_.bfloat16) test.template operator()<bfloat16>();
  }
  /// For an op to write: full of a value that no op leaves behind by chance.
  template <class T>
  Tensor<T> result(int64_t count) const {
    const auto size = static_cast<size_t>(count);
    if constexpr (std::is_same_v<T, bfloat16>) {
      return tensor(std::vector<T>(size, toBfloat16(-776)));
    } else {
      return tensor(std::vector<T>(size, static_cast<T>(-777)));
    }
  }
  template <class T>
  static Input<T> none() {
    return {nullptr, 0};
  }
  template <class T>
  static Output<T> noResult() {
    return {nullptr, 0};
  }

  /// The values are the same bits in every run under this name on this instruction set: with other thread counts, with
  /// other schedules of an emulated device.
  template <class T>
  void sameInEveryRun(const std::string& name, const std::vector<T>& values) const {
    compareRuns(name, values.data(), values.size() * sizeof(T));
  }

 private:
  void compareRuns(const std::string& name, const void* data, size_t bytes) const;

  Backend& backend_;
  Memory& memory_;
  Traits traits_;
  std::map<std::string, std::vector<uint8_t>>& seen_;
};

// ---------------------------------------------------------------- checks

void expect(bool condition, const std::string& what);

/// |actual - expected| <= relative * |expected| + absolute for every element; infinities and NaN must match in kind.
void expectNear(const std::vector<float>& actual, const std::vector<double>& expected, double relative, double absolute,
                const std::string& what);
void expectNear(const std::vector<double>& actual, const std::vector<double>& expected, double relative,
                double absolute, const std::string& what);

void expectSameBits(const void* actual, const void* expected, size_t bytes, const std::string& what);
template <class T>
void expectSame(const std::vector<T>& actual, const std::vector<T>& expected, const std::string& what) {
  expect(actual.size() == expected.size(), what + ": sizes differ");
  expectSameBits(actual.data(), expected.data(), actual.size() * sizeof(T), what);
}

/// The call throws dp_moe::Error with this code, on a backend that works in the background at the latest when waited
/// for.
void expectError(const std::string& code, const std::function<void()>& call, const std::string& what);

/// Runs a call that may fail, and waits for it; main.cpp sets it for backends that work in the background.
using CheckedCall = std::function<void(const std::function<void()>&)>;
extern CheckedCall checkedCall;

// ---------------------------------------------------------------- registration

using TestFunction = void (*)(const Context&);

struct Registration {
  Registration(const char* name, TestFunction test);
};

#define CONFORMANCE_TEST(name)                                                                     \
  static void conformance_##name(const ::dp_moe::conformance::Context& context);                   \
  static const ::dp_moe::conformance::Registration registration_##name(#name, conformance_##name); \
  static void conformance_##name(const ::dp_moe::conformance::Context& context)

}  // namespace dp_moe::conformance
