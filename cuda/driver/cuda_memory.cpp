#include "cuda_memory.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

namespace dp_moe {

namespace {

constexpr int64_t kHalfBytes = 8 << 20;
constexpr int64_t kAlignment = 64;

CUdeviceptr pointer(const void* address) { return reinterpret_cast<uintptr_t>(address); }

std::string tried(const char* what, int64_t bytes) {
  return std::string(what) + " " + std::to_string(bytes) + " bytes";
}

}  // namespace

CudaMemory::Half::Half(cuda::Context& context) : memory(context, kHalfBytes), read(context) {}

CudaMemory::CudaMemory(cuda::Context& context) : context_(context), halves_{Half(context), Half(context)} {
  context_.enter();
  context_.check(context_.api().cuDeviceGetDefaultMemPool(&pool_, context_.device()), "finding the memory pool");
  // Freed memory stays with the process: giving it back to the system at every wait costs milliseconds.
  uint64_t keepAll = UINT64_MAX;
  context_.check(context_.api().cuMemPoolSetAttribute(pool_, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keepAll),
                 "setting up the memory pool");
}

CudaMemory::~CudaMemory() {
  if (!context_.tryEnter()) return;
  context_.api().cuStreamSynchronize(context_.stream());
  context_.api().cuMemPoolTrimTo(pool_, 0);
}

void* CudaMemory::reserve(int64_t bytes) {
  context_.enter();
  CUdeviceptr address = 0;
  const CUresult result = context_.api().cuMemAllocAsync(&address, static_cast<size_t>(bytes), context_.stream());
  if (result == CUDA_ERROR_OUT_OF_MEMORY) return nullptr;
  if (result != CUDA_SUCCESS) context_.fail(result, tried("taking", bytes));
  return reinterpret_cast<void*>(static_cast<uintptr_t>(address));
}

void CudaMemory::release(void* address, int64_t) noexcept {
  if (context_.tryEnter()) context_.api().cuMemFreeAsync(pointer(address), context_.stream());
}

void CudaMemory::upload(void* to, const void* from, int64_t bytes) {
  context_.enter();
  for (int64_t done = 0; done < bytes;) {
    Half& half = halves_[static_cast<size_t>(current_)];
    const int64_t part = std::min(bytes - done, kHalfBytes - half.used);
    if (part == 0) {
      half.read.record();
      current_ = 1 - current_;
      halves_[static_cast<size_t>(current_)].read.wait();
      halves_[static_cast<size_t>(current_)].used = 0;
      continue;
    }
    char* staged = static_cast<char*>(half.memory.address()) + half.used;
    std::memcpy(staged, static_cast<const char*>(from) + done, static_cast<size_t>(part));
    const CUresult result = context_.api().cuMemcpyHtoDAsync(pointer(to) + static_cast<CUdeviceptr>(done), staged,
                                                             static_cast<size_t>(part), context_.stream());
    if (result != CUDA_SUCCESS) context_.fail(result, tried("uploading", part));
    half.used = std::min(kHalfBytes, (half.used + part + kAlignment - 1) / kAlignment * kAlignment);
    done += part;
  }
}

void CudaMemory::download(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  context_.enter();
  const CUresult result =
      context_.api().cuMemcpyDtoHAsync(to, pointer(from), static_cast<size_t>(bytes), context_.stream());
  if (result != CUDA_SUCCESS) context_.fail(result, tried("downloading", bytes));
  context_.synchronize();
}

void CudaMemory::copy(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return;
  context_.enter();
  const CUresult result =
      context_.api().cuMemcpyDtoDAsync(pointer(to), pointer(from), static_cast<size_t>(bytes), context_.stream());
  if (result != CUDA_SUCCESS) context_.fail(result, tried("copying", bytes));
}

void CudaMemory::fill(void* to, DType dtype, int64_t count, double value) {
  if (count == 0) return;
  context_.enter();
  const auto size = static_cast<size_t>(count);
  const auto fillWords = [&](uint32_t word, size_t words) {
    context_.check(context_.api().cuMemsetD32Async(pointer(to), word, words, context_.stream()), "filling a tensor");
  };
  switch (dtype) {
    case DType::float32:
      return fillWords(std::bit_cast<uint32_t>(static_cast<float>(value)), size);
    case DType::int32:
      return fillWords(std::bit_cast<uint32_t>(static_cast<int32_t>(value)), size);
    case DType::bfloat16:
      return context_.check(context_.api().cuMemsetD16Async(pointer(to), toBfloat16(static_cast<float>(value)).bits,
                                                            size, context_.stream()),
                            "filling a tensor");
    case DType::float64: {
      const auto bits = std::bit_cast<uint64_t>(value);
      if (bits >> 32 == (bits & 0xffffffffu)) return fillWords(static_cast<uint32_t>(bits), 2 * size);
      // The driver fills with at most 32 bits.
      const std::vector<double> values(size, value);
      return upload(to, values.data(), count * 8);
    }
  }
}

int64_t CudaMemory::available() {
  context_.enter();
  size_t free = 0;
  size_t total = 0;
  context_.check(context_.api().cuMemGetInfo(&free, &total), "asking for the free memory");
  return static_cast<int64_t>(free);
}

}  // namespace dp_moe
