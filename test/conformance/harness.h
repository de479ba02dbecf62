#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.h"
#include "error.h"
#include "memory.h"

// The conformance suite: every op of a Backend against a float64 reference. A test is a function registered with
// CONFORMANCE_TEST; it runs on every backend of the machine (on the CPU: every instruction set with 1, 2 and 3 threads)
// and fails by throwing. Operands live in the backend's memory, behind guards that show a write past their end.

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

/// Memory of a backend for one operand, with guard bytes behind it.
class Block {
 public:
  Block(Memory& memory, const void* initial, int64_t bytes);
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();
  void* address() const { return address_; }
  void read(void* to) const;  // throws Failure when a guard was overwritten

 private:
  Memory& memory_;
  void* address_;
  int64_t bytes_;
};

template <class T>
class Tensor {
 public:
  Tensor(Memory& memory, const std::vector<T>& values)
      : size_(static_cast<int64_t>(values.size())),
        block_(std::make_shared<Block>(memory, values.data(), size_ * static_cast<int64_t>(sizeof(T)))) {}
  operator Input<T>() const { return {static_cast<const T*>(block_->address()), size_}; }
  operator Output<T>() const { return {static_cast<T*>(block_->address()), size_}; }
  std::vector<T> values() const {
    std::vector<T> result(static_cast<size_t>(size_));
    block_->read(result.data());
    return result;
  }

 private:
  int64_t size_;
  std::shared_ptr<Block> block_;
};

/// What a test runs on.
class Context {
 public:
  Context(Backend& backend, Memory& memory, std::string instructionSet,
          std::map<std::string, std::vector<uint8_t>>& seen)
      : backend_(backend), memory_(memory), instructionSet_(std::move(instructionSet)), seen_(seen) {}

  Backend& backend() const { return backend_; }
  const std::string& instructionSet() const { return instructionSet_; }

  template <class T>
  Tensor<T> tensor(const std::vector<T>& values) const {
    return Tensor<T>(memory_, values);
  }
  /// For an op to write: full of a value that no op leaves behind by chance.
  template <class T>
  Tensor<T> result(int64_t count) const {
    return Tensor<T>(memory_, std::vector<T>(static_cast<size_t>(count), static_cast<T>(-777)));
  }
  template <class T>
  static Input<T> none() {
    return {nullptr, 0};
  }
  template <class T>
  static Output<T> noResult() {
    return {nullptr, 0};
  }

  /// The values are the same bits in every run under this name on this instruction set (other thread counts).
  template <class T>
  void sameInEveryRun(const std::string& name, const std::vector<T>& values) const {
    compareRuns(name, values.data(), values.size() * sizeof(T));
  }

 private:
  void compareRuns(const std::string& name, const void* data, size_t bytes) const;

  Backend& backend_;
  Memory& memory_;
  std::string instructionSet_;
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

/// The call throws dp_moe::Error with this code.
void expectError(const std::string& code, const std::function<void()>& call, const std::string& what);

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
