#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "device.h"

// The functions of libcuda that the engine uses, answered by the emulated device.

namespace dp_moe {

namespace {

using namespace emulation;

constexpr CUresult CUDA_ERROR_INVALID_VALUE = 1;
constexpr CUresult CUDA_ERROR_NOT_INITIALIZED = 3;
constexpr CUresult CUDA_ERROR_INVALID_DEVICE = 101;
constexpr CUresult CUDA_ERROR_INVALID_CONTEXT = 201;
constexpr CUresult CUDA_ERROR_INVALID_HANDLE = 400;
constexpr CUresult CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES = 701;
constexpr CUresult CUDA_ERROR_NOT_SUPPORTED = 801;

constexpr uint32_t kMaxGridY = 65535;
constexpr uint32_t kFatbinMagic = 0xba55ed50;
constexpr const char* kEmulatedImage = "dp-moe emulated image";

bool initialised = false;
thread_local CUcontext current = nullptr;

EmulatedDevice& device() { return EmulatedDevice::instance(); }
CUcontext primaryContext() { return reinterpret_cast<CUcontext>(&device()); }

/// Runs `body` on the device, alone. Without `needsContext` it may be called before there is one.
template <class Body>
CUresult call(bool needsContext, const Body& body) {
  const std::lock_guard lock(device().mutex());
  if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
  if (const CUresult failure = device().enter(); failure != CUDA_SUCCESS) return failure;
  if (needsContext && (current == nullptr || !device().isOpen())) return CUDA_ERROR_INVALID_CONTEXT;
  return body();
}

/// The same with the stream.
template <class Body>
CUresult callOn(CUstream handle, const Body& body) {
  return call(true, [&] {
    emulation::Stream* stream = device().find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    return body(*stream);
  });
}

void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(static_cast<uintptr_t>(address)); }

struct ErrorText {
  CUresult result;
  const char* name;
  const char* text;
};

constexpr ErrorText kErrors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
};

const ErrorText* findError(CUresult result) {
  const auto* found =
      std::find_if(std::begin(kErrors), std::end(kErrors), [&](const ErrorText& e) { return e.result == result; });
  return found == std::end(kErrors) ? nullptr : found;
}

/// A copy or fill of device memory that runs with the stream.
template <class Command>
CUresult enqueueOn(CUstream handle, std::initializer_list<CUdeviceptr> addresses, size_t bytes, Command command) {
  return callOn(handle, [&](emulation::Stream& stream) {
    for (const CUdeviceptr address : addresses) {
      if (!device().heap().holds(address, bytes)) return CUDA_ERROR_INVALID_VALUE;
    }
    device().enqueue(stream, std::move(command));
    return device().failure();
  });
}

template <class Word>
CUresult fill(CUdeviceptr address, Word word, size_t count, CUstream stream) {
  return enqueueOn(stream, {address}, count * sizeof(Word),
                   [=] { std::fill_n(static_cast<Word*>(pointer(address)), count, word); });
}

}  // namespace

#define DP_MOE_EXPORT(name, symbol, parameters) \
  extern "C" __attribute__((visibility("default"))) CUresult name parameters __asm__(symbol);
DP_MOE_DRIVER_FUNCTIONS(DP_MOE_EXPORT)
#undef DP_MOE_EXPORT

// ---------------------------------------------------------------- driver and devices

CUresult cuDriverGetVersion(int* version) {
  const std::lock_guard lock(device().mutex());
  *version = device().settings().driverVersion;
  return CUDA_SUCCESS;
}

CUresult cuInit(unsigned flags) {
  const std::lock_guard lock(device().mutex());
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (device().settings().devices == 0) return CUDA_ERROR_NO_DEVICE;
  initialised = true;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult result, const char** name) {
  const ErrorText* error = findError(result);
  *name = error == nullptr ? nullptr : error->name;
  return error == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char** text) {
  const ErrorText* error = findError(result);
  *text = error == nullptr ? nullptr : error->text;
  if (error == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const std::lock_guard lock(device().mutex());
  if (result == device().failure() && !device().failureText().empty()) *text = device().failureText().c_str();
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  return call(false, [&] { return *count = device().settings().devices, CUDA_SUCCESS; });
}

CUresult cuDeviceGet(CUdevice* found, int index) {
  return call(false, [&] {
    if (index < 0 || index >= device().settings().devices) return CUDA_ERROR_INVALID_DEVICE;
    *found = index;
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
  return call(false, [&] {
    std::strncpy(name, "Emulated device", static_cast<size_t>(bytes));
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceTotalMem(size_t* bytes, CUdevice) {
  return call(false, [&] { return *bytes = static_cast<size_t>(device().settings().memory), CUDA_SUCCESS; });
}

CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice) {
  return call(false, [&] {
    switch (attribute) {
      case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        // Results may not depend on it, so that it is another one in every schedule.
        *value = 1 + static_cast<int>(device().settings().seed * 3 % 7);
        return CUDA_SUCCESS;
      case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *value = 9;
        return CUDA_SUCCESS;
      case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *value = 0;
        return CUDA_SUCCESS;
      case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        *value = static_cast<int>(kMaxSharedMemory);
        return CUDA_SUCCESS;
      case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
        *value = 1;
        return CUDA_SUCCESS;
      default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
  });
}

// ---------------------------------------------------------------- context, streams, events

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  return call(false, [&] {
    device().retain();
    *context = primaryContext();
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  const std::lock_guard lock(device().mutex());
  return device().release() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  return call(false, [&] {
    if (context != nullptr && context != primaryContext()) return CUDA_ERROR_INVALID_CONTEXT;
    current = context;
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  return call(true, [&] { return *stream = reinterpret_cast<CUstream>(device().makeStream()), CUDA_SUCCESS; });
}

CUresult cuStreamDestroy(CUstream handle) {
  return callOn(handle, [](emulation::Stream& stream) { return device().destroy(&stream), CUDA_SUCCESS; });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return callOn(handle, [](emulation::Stream& stream) {
    device().runUntil(stream, stream.enqueued);
    return device().failure();
  });
}

CUresult cuEventCreate(CUevent* event, unsigned) {
  return call(true, [&] { return *event = reinterpret_cast<CUevent>(device().makeEvent()), CUDA_SUCCESS; });
}

CUresult cuEventDestroy(CUevent handle) {
  return call(true, [&] {
    Event* event = device().find(handle);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    device().destroy(event);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventRecord(CUevent handle, CUstream streamHandle) {
  return callOn(streamHandle, [&](emulation::Stream& stream) {
    Event* event = device().find(handle);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *event = {&stream, stream.enqueued};
    return CUDA_SUCCESS;
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  return call(true, [&] {
    Event* event = device().find(handle);
    if (event == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (event->stream != nullptr) device().runUntil(*event->stream, event->position);
    return device().failure();
  });
}

// ---------------------------------------------------------------- memory

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice) {
  return call(false, [&] { return *pool = reinterpret_cast<CUmemoryPool>(&device()), CUDA_SUCCESS; });
}

CUresult cuMemPoolSetAttribute(CUmemoryPool, int attribute, void*) {
  return call(true,
              [&] { return attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED; });
}

CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) {
  return call(true, [] { return CUDA_SUCCESS; });
}

CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream handle) {
  return callOn(handle, [&](emulation::Stream&) {
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (device().allocationFails()) return CUDA_ERROR_OUT_OF_MEMORY;
    const auto limit = static_cast<size_t>(device().settings().memory);
    *address = device().heap().allocate(bytes, limit);
    if (*address == 0) {
      device().runAll();  // memory that is freed in stream order can be had
      *address = device().heap().allocate(bytes, limit);
    }
    return *address == 0 ? CUDA_ERROR_OUT_OF_MEMORY : device().failure();
  });
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  return callOn(handle, [&](emulation::Stream& stream) {
    if (!device().heap().retire(address)) return CUDA_ERROR_INVALID_VALUE;
    device().enqueue(stream, [address] { device().heap().release(address); });
    return device().failure();
  });
}

CUresult cuMemGetInfo(size_t* free, size_t* total) {
  return call(true, [&] {
    *total = static_cast<size_t>(device().settings().memory);
    *free = *total - device().heap().used();
    return CUDA_SUCCESS;
  });
}

CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  return call(true, [&] { return *address = device().heap().pin(bytes), CUDA_SUCCESS; });
}

CUresult cuMemFreeHost(void* address) {
  return call(true, [&] {
    device().runAll();  // as the driver does
    return device().heap().unpin(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
  });
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  const auto isPinned = [&] {
    const std::lock_guard lock(device().mutex());
    return device().heap().isPinned(from, bytes);
  };
  if (isPinned()) {
    return enqueueOn(stream, {to}, bytes, [=] { std::memcpy(pointer(to), from, bytes); });
  }
  // The driver has read memory that is not pinned when the call returns.
  const auto* source = static_cast<const std::byte*>(from);
  const std::vector<std::byte> staged(source, source + bytes);
  return enqueueOn(stream, {to}, bytes, [=] { std::memcpy(pointer(to), staged.data(), bytes); });
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return enqueueOn(stream, {from}, bytes, [=] { std::memcpy(to, pointer(from), bytes); });
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return enqueueOn(stream, {to, from}, bytes, [=] { std::memmove(pointer(to), pointer(from), bytes); });
}

CUresult cuMemsetD16Async(CUdeviceptr address, unsigned short word, size_t count, CUstream stream) {
  return address % 2 != 0 ? CUDA_ERROR_INVALID_VALUE : fill<uint16_t>(address, word, count, stream);
}

CUresult cuMemsetD32Async(CUdeviceptr address, unsigned word, size_t count, CUstream stream) {
  return address % 4 != 0 ? CUDA_ERROR_INVALID_VALUE : fill<uint32_t>(address, word, count, stream);
}

// ---------------------------------------------------------------- kernels

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return call(true, [&] {
    uint32_t magic = 0;
    std::memcpy(&magic, image, sizeof magic);
    const bool emulated = std::strncmp(static_cast<const char*>(image), kEmulatedImage, strlen(kEmulatedImage)) == 0;
    if (magic != kFatbinMagic && !emulated) return CUDA_ERROR_INVALID_IMAGE;
    if (device().settings().noImage) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *module = reinterpret_cast<CUmodule>(&device());
    return CUDA_SUCCESS;
  });
}

CUresult cuModuleUnload(CUmodule) {
  return call(true, [] { return device().runAll(), CUDA_SUCCESS; });
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
  return call(true, [&] {
    *function = reinterpret_cast<CUfunction>(device().functionOf(name));
    return *function == nullptr ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
  });
}

CUresult cuFuncSetAttribute(CUfunction handle, int attribute, int value) {
  return call(true, [&] {
    Function* function = device().find(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_NOT_SUPPORTED;
    if (value < 0 || static_cast<size_t>(value) > kMaxSharedMemory) return CUDA_ERROR_INVALID_VALUE;
    function->maxDynamicShared = static_cast<size_t>(value);
    return CUDA_SUCCESS;
  });
}

CUresult cuLaunchKernel(CUfunction handle, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned threads,
                        unsigned blockY, unsigned blockZ, unsigned sharedBytes, CUstream streamHandle,
                        void** parameters, void** extra) {
  return callOn(streamHandle, [&](emulation::Stream& stream) {
    const Function* function = device().find(handle);
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (gridZ != 1 || blockY != 1 || blockZ != 1 || extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    if (gridX == 0 || gridY == 0 || gridX > INT32_MAX || gridY > kMaxGridY) return CUDA_ERROR_INVALID_VALUE;
    if (threads == 0 || sharedBytes > function->maxDynamicShared) return CUDA_ERROR_INVALID_VALUE;
    if (device().launchIsRefused() || threads > function->kernel->maxThreads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    Launch launch{function->kernel, {gridX, gridY}, threads, sharedBytes, nullptr};
    launch.parameters = std::make_unique<std::byte[]>(function->kernel->parameterBytes);
    std::memcpy(launch.parameters.get(), parameters[0], function->kernel->parameterBytes);
    device().launch(stream, std::move(launch));
    return device().failure();
  });
}

// ---------------------------------------------------------------- for tests

/// Gives the device other settings (settings.h) and counts from 1 again. False when the text is not understood.
extern "C" __attribute__((visibility("default"))) bool dpMoeEmulationConfigure(const char* text) {
  const std::lock_guard lock(device().mutex());
  try {
    device().configure(parseSettings(text));
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

/// Whether races end a launch from now on, where they are watched for. Where an operand is wrong, what a kernel does
/// with it may race.
extern "C" __attribute__((visibility("default"))) void dpMoeEmulationRefuseRaces(bool refuse) {
  const std::lock_guard lock(device().mutex());
  RaceDetector::refuses = refuse;
}

/// How many pieces of device memory there are.
extern "C" __attribute__((visibility("default"))) uint64_t dpMoeEmulationAllocations() {
  const std::lock_guard lock(device().mutex());
  return device().heap().allocations();
}

}  // namespace dp_moe
