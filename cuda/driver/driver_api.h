#pragma once

#include <cstddef>
#include <cstdint>

// The part of the CUDA driver's interface that the engine uses, declared here so that building needs no CUDA toolkit.
// Names and values are the driver's own; the library is opened at run time (library.h).

namespace dp_moe {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUmemoryPool = struct CUmemPoolHandle_st*;

constexpr CUresult CUDA_SUCCESS = 0;
constexpr CUresult CUDA_ERROR_OUT_OF_MEMORY = 2;
constexpr CUresult CUDA_ERROR_DEINITIALIZED = 4;
constexpr CUresult CUDA_ERROR_STUB_LIBRARY = 34;
constexpr CUresult CUDA_ERROR_DEVICE_UNAVAILABLE = 46;
constexpr CUresult CUDA_ERROR_NO_DEVICE = 100;
constexpr CUresult CUDA_ERROR_INVALID_IMAGE = 200;
constexpr CUresult CUDA_ERROR_NO_BINARY_FOR_GPU = 209;
constexpr CUresult CUDA_ERROR_ECC_UNCORRECTABLE = 214;
constexpr CUresult CUDA_ERROR_INVALID_PTX = 218;
constexpr CUresult CUDA_ERROR_NVLINK_UNCORRECTABLE = 220;
constexpr CUresult CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222;
constexpr CUresult CUDA_ERROR_CONTAINED = 226;
constexpr CUresult CUDA_ERROR_NOT_FOUND = 500;
constexpr CUresult CUDA_ERROR_ILLEGAL_ADDRESS = 700;
constexpr CUresult CUDA_ERROR_LAUNCH_TIMEOUT = 702;
constexpr CUresult CUDA_ERROR_CONTEXT_IS_DESTROYED = 709;
constexpr CUresult CUDA_ERROR_ASSERT = 710;
constexpr CUresult CUDA_ERROR_HARDWARE_STACK_ERROR = 714;
constexpr CUresult CUDA_ERROR_LAUNCH_FAILED = 719;
constexpr CUresult CUDA_ERROR_TENSOR_MEMORY_LEAK = 721;
constexpr CUresult CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803;
constexpr CUresult CUDA_ERROR_EXTERNAL_DEVICE = 911;
constexpr CUresult CUDA_ERROR_UNKNOWN = 999;

constexpr unsigned CU_STREAM_NON_BLOCKING = 1;
constexpr unsigned CU_EVENT_DISABLE_TIMING = 2;
constexpr int CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16;
constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75;
constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76;
constexpr int CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97;
constexpr int CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED = 115;
constexpr int CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
constexpr int CU_MEMPOOL_ATTR_RELEASE_THRESHOLD = 4;

/// F(name, symbol, parameters) for every function used; `symbol` is what the library exports.
#define DP_MOE_DRIVER_FUNCTIONS(F)                                                           \
  F(cuDriverGetVersion, "cuDriverGetVersion", (int*))                                        \
  F(cuInit, "cuInit", (unsigned))                                                            \
  F(cuGetErrorName, "cuGetErrorName", (CUresult, const char**))                              \
  F(cuGetErrorString, "cuGetErrorString", (CUresult, const char**))                          \
  F(cuDeviceGetCount, "cuDeviceGetCount", (int*))                                            \
  F(cuDeviceGet, "cuDeviceGet", (CUdevice*, int))                                            \
  F(cuDeviceGetName, "cuDeviceGetName", (char*, int, CUdevice))                              \
  F(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t*, CUdevice))                            \
  F(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int*, int, CUdevice))                     \
  F(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext*, CUdevice))            \
  F(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                   \
  F(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                         \
  F(cuStreamCreate, "cuStreamCreate", (CUstream*, unsigned))                                 \
  F(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream))                                       \
  F(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                  \
  F(cuEventCreate, "cuEventCreate", (CUevent*, unsigned))                                    \
  F(cuEventDestroy, "cuEventDestroy_v2", (CUevent))                                          \
  F(cuEventRecord, "cuEventRecord", (CUevent, CUstream))                                     \
  F(cuEventSynchronize, "cuEventSynchronize", (CUevent))                                     \
  F(cuDeviceGetDefaultMemPool, "cuDeviceGetDefaultMemPool", (CUmemoryPool*, CUdevice))       \
  F(cuMemPoolSetAttribute, "cuMemPoolSetAttribute", (CUmemoryPool, int, void*))              \
  F(cuMemPoolTrimTo, "cuMemPoolTrimTo", (CUmemoryPool, size_t))                              \
  F(cuMemAllocAsync, "cuMemAllocAsync", (CUdeviceptr*, size_t, CUstream))                    \
  F(cuMemFreeAsync, "cuMemFreeAsync", (CUdeviceptr, CUstream))                               \
  F(cuMemGetInfo, "cuMemGetInfo_v2", (size_t*, size_t*))                                     \
  F(cuMemHostAlloc, "cuMemHostAlloc", (void**, size_t, unsigned))                            \
  F(cuMemFreeHost, "cuMemFreeHost", (void*))                                                 \
  F(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void*, size_t, CUstream)) \
  F(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void*, CUdeviceptr, size_t, CUstream))       \
  F(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream)) \
  F(cuMemsetD16Async, "cuMemsetD16Async", (CUdeviceptr, unsigned short, size_t, CUstream))   \
  F(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr, unsigned, size_t, CUstream))         \
  F(cuModuleLoadData, "cuModuleLoadData", (CUmodule*, const void*))                          \
  F(cuModuleUnload, "cuModuleUnload", (CUmodule))                                            \
  F(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction*, CUmodule, const char*))        \
  F(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, int, int))                        \
  F(cuLaunchKernel, "cuLaunchKernel",                                                        \
    (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**))

/// The driver's functions.
struct DriverApi {
#define DP_MOE_DECLARE(name, symbol, parameters) CUresult(*name) parameters = nullptr;
  DP_MOE_DRIVER_FUNCTIONS(DP_MOE_DECLARE)
#undef DP_MOE_DECLARE
};

}  // namespace dp_moe
