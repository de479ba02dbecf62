#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace dp_moe {

/// Working memory that one op at a time uses, grown to the largest need seen and kept: after the first steps nothing
/// is allocated. Contents are undefined.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { release(); }

  /// `count` values of T, 64-byte aligned; the memory of an earlier call is given up.
  template <class T>
  T* take(int64_t count) {
    const auto bytes = static_cast<size_t>(count) * sizeof(T);
    if (bytes > bytes_) {
      release();
      data_ = ::operator new(bytes, kAlignment);
      bytes_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  void release() {
    if (data_ != nullptr) ::operator delete(data_, kAlignment);
    data_ = nullptr;
    bytes_ = 0;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace dp_moe
