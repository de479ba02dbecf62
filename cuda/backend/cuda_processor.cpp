#include "cuda_processor.h"

namespace dp_moe {

namespace {

constexpr int kWarp = 32;

}  // namespace

CudaProcessor::CudaProcessor(int index, DType precision)
    : context_(index), memory_(context_), launcher_(context_), backend_(launcher_) {
  const cuda::DeviceDescription& device = context_.description();
  info_ = {"sm_" + std::to_string(device.major * 10 + device.minor), kWarp, device.multiprocessors, true, precision};
}

// What was launched may still use the memory that the members give back.
CudaProcessor::~CudaProcessor() {
  if (context_.tryEnter()) context_.api().cuStreamSynchronize(context_.stream());
}

}  // namespace dp_moe
