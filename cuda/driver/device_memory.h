#pragma once

#include <cstdint>

#include "context.h"

namespace dp_moe::cuda {

/// A piece of device memory, freed in stream order.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  /// Throws OUT_OF_MEMORY.
  DeviceMemory(Context& context, int64_t bytes);
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();

  void* address() const;
  int64_t bytes() const { return bytes_; }

 private:
  Context* context_ = nullptr;
  CUdeviceptr address_ = 0;
  int64_t bytes_ = 0;
};

/// Memory of the host that the device reads and writes directly.
class PinnedMemory {
 public:
  PinnedMemory(Context& context, int64_t bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  void* address() const { return address_; }
  int64_t bytes() const { return bytes_; }

 private:
  Context& context_;
  void* address_ = nullptr;
  int64_t bytes_;
};

/// A mark in the stream that the host can wait for.
class Event {
 public:
  explicit Event(Context& context);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record();
  /// At once when never recorded.
  void wait();

 private:
  Context& context_;
  CUevent event_ = nullptr;
};

}  // namespace dp_moe::cuda
