#include "harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

namespace dp_moe::conformance {

namespace {

constexpr unsigned char kGuard = 0xa5;

template <class T>
void compareNear(const std::vector<T>& actual, const std::vector<double>& expected, double relative, double absolute,
                 const std::string& what) {
  expect(actual.size() == expected.size(),
         what + ": expected " + std::to_string(expected.size()) + " elements, got " + std::to_string(actual.size()));
  for (size_t i = 0; i < actual.size(); ++i) {
    const auto got = static_cast<double>(actual[i]);
    const double want = expected[i];
    const bool near = std::isfinite(want) ? std::abs(got - want) <= relative * std::abs(want) + absolute
                      : std::isnan(want)  ? std::isnan(got)
                                          : got == want;
    if (!near) {
      char text[200];
      std::snprintf(text, sizeof text, ": element %zu: expected %.9g, got %.9g (off by %.3g)", i, want, got,
                    got - want);
      throw Failure(what + text);
    }
  }
}

}  // namespace

CheckedCall checkedCall = [](const std::function<void()>& call) { call(); };

uint64_t Random::bits() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

double Random::uniform(double low, double high) {
  return low + (high - low) * (static_cast<double>(bits() >> 11) * 0x1p-53);
}

double Random::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform(0, 1)));
  return radius * std::cos(2 * std::numbers::pi * uniform(0, 1));
}

int32_t Random::below(int32_t limit) { return static_cast<int32_t>(bits() % static_cast<uint64_t>(limit)); }

std::vector<float> Random::normals(int64_t count, double scale) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(normal() * scale);
  return values;
}

Block::Block(Memory& memory, int64_t guardBytes, const void* initial, int64_t bytes)
    : memory_(memory),
      address_(memory.reserve(std::max<int64_t>(1, bytes + guardBytes))),
      bytes_(bytes),
      guardBytes_(guardBytes) {
  if (address_ == nullptr) throw Failure("no memory for an operand");
  std::vector<unsigned char> content(static_cast<size_t>(bytes_ + guardBytes_), kGuard);
  if (bytes > 0) std::memcpy(content.data(), initial, static_cast<size_t>(bytes));
  memory_.upload(address_, content.data(), bytes_ + guardBytes_);
}

Block::~Block() { memory_.release(address_, std::max<int64_t>(1, bytes_ + guardBytes_)); }

void Block::read(void* to) const {
  std::vector<unsigned char> content(static_cast<size_t>(bytes_ + guardBytes_));
  memory_.download(content.data(), address_, bytes_ + guardBytes_);
  for (auto i = static_cast<size_t>(bytes_); i < content.size(); ++i) {
    if (content[i] != kGuard) {
      throw Failure("byte " + std::to_string(static_cast<int64_t>(i) - bytes_) + " past an operand was overwritten");
    }
  }
  if (bytes_ > 0) std::memcpy(to, content.data(), static_cast<size_t>(bytes_));
}

void Context::compareRuns(const std::string& name, const void* data, size_t bytes) const {
  const auto* first = static_cast<const uint8_t*>(data);
  const auto [entry, isNew] = seen_.try_emplace(name, first, first + bytes);
  if (isNew) return;
  expect(entry->second.size() == bytes, name + ": another size than in an earlier run");
  expectSameBits(data, entry->second.data(), bytes, name + " (against an earlier run)");
}

void expect(bool condition, const std::string& what) {
  if (!condition) throw Failure(what);
}

void expectNear(const std::vector<float>& actual, const std::vector<double>& expected, double relative, double absolute,
                const std::string& what) {
  compareNear(actual, expected, relative, absolute, what);
}

void expectNear(const std::vector<double>& actual, const std::vector<double>& expected, double relative,
                double absolute, const std::string& what) {
  compareNear(actual, expected, relative, absolute, what);
}

void expectSameBits(const void* actual, const void* expected, size_t bytes, const std::string& what) {
  const auto* a = static_cast<const uint8_t*>(actual);
  const auto* b = static_cast<const uint8_t*>(expected);
  for (size_t i = 0; i < bytes; ++i) {
    if (a[i] != b[i]) throw Failure(what + ": bits differ at byte " + std::to_string(i));
  }
}

void expectError(const std::string& code, const std::function<void()>& call, const std::string& what) {
  try {
    checkedCall(call);
  } catch (const Error& error) {
    expect(error.code() == code, what + ": expected the error " + code + ", got " + error.code() + ": " + error.what());
    return;
  }
  throw Failure(what + ": expected the error " + code + ", but the call succeeded");
}

}  // namespace dp_moe::conformance
