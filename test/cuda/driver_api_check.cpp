// Holds what cuda/driver/driver_api.h declares to NVIDIA's own header; compiled only
// (test/engine/cuda-driver-api.test.ts).
#include <cuda.h>

#include <string_view>
#include <type_traits>

#include "../../cuda/driver/driver_api.h"

namespace {

template <class Theirs, class Ours>
constexpr bool samePassing = sizeof(Theirs) == sizeof(Ours) && std::is_pointer_v<Theirs> == std::is_pointer_v<Ours>;

template <class... Theirs, class... Ours>
constexpr bool matches(CUresult (*)(Theirs...), dp_moe::CUresult (*)(Ours...)) {
  if constexpr (sizeof...(Theirs) == sizeof...(Ours)) {
    return (samePassing<Theirs, Ours> && ...);
  } else {
    return false;
  }
}

}  // namespace

// The header gives a function's name the version that this CUDA has: cuMemGetInfo is a macro for cuMemGetInfo_v2.
#define DP_MOE_TEXT(name) #name
#define DP_MOE_CHECK(name, symbol, parameters)                                              \
  static_assert(std::string_view(DP_MOE_TEXT(name)) == symbol, "another version: " symbol); \
  static_assert(matches(static_cast<decltype(&::name)>(nullptr), decltype(dp_moe::DriverApi::name){}), symbol);
DP_MOE_DRIVER_FUNCTIONS(DP_MOE_CHECK)

#define DP_MOE_SAME(name) static_assert(static_cast<long long>(::name) == static_cast<long long>(dp_moe::name), #name);
DP_MOE_SAME(CUDA_SUCCESS)
DP_MOE_SAME(CUDA_ERROR_OUT_OF_MEMORY)
DP_MOE_SAME(CUDA_ERROR_DEINITIALIZED)
DP_MOE_SAME(CUDA_ERROR_STUB_LIBRARY)
DP_MOE_SAME(CUDA_ERROR_DEVICE_UNAVAILABLE)
DP_MOE_SAME(CUDA_ERROR_NO_DEVICE)
DP_MOE_SAME(CUDA_ERROR_INVALID_IMAGE)
DP_MOE_SAME(CUDA_ERROR_NO_BINARY_FOR_GPU)
DP_MOE_SAME(CUDA_ERROR_ECC_UNCORRECTABLE)
DP_MOE_SAME(CUDA_ERROR_INVALID_PTX)
DP_MOE_SAME(CUDA_ERROR_NVLINK_UNCORRECTABLE)
DP_MOE_SAME(CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
DP_MOE_SAME(CUDA_ERROR_CONTAINED)
DP_MOE_SAME(CUDA_ERROR_NOT_FOUND)
DP_MOE_SAME(CUDA_ERROR_ILLEGAL_ADDRESS)
DP_MOE_SAME(CUDA_ERROR_LAUNCH_TIMEOUT)
DP_MOE_SAME(CUDA_ERROR_CONTEXT_IS_DESTROYED)
DP_MOE_SAME(CUDA_ERROR_ASSERT)
DP_MOE_SAME(CUDA_ERROR_HARDWARE_STACK_ERROR)
DP_MOE_SAME(CUDA_ERROR_LAUNCH_FAILED)
DP_MOE_SAME(CUDA_ERROR_TENSOR_MEMORY_LEAK)
DP_MOE_SAME(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)
DP_MOE_SAME(CUDA_ERROR_EXTERNAL_DEVICE)
DP_MOE_SAME(CUDA_ERROR_UNKNOWN)
DP_MOE_SAME(CU_STREAM_NON_BLOCKING)
DP_MOE_SAME(CU_EVENT_DISABLE_TIMING)
DP_MOE_SAME(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
DP_MOE_SAME(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
DP_MOE_SAME(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
DP_MOE_SAME(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
DP_MOE_SAME(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)
DP_MOE_SAME(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
DP_MOE_SAME(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
