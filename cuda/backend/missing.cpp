#include <string>

#include "cuda_backend.h"
#include "error.h"

// The ops without a CUDA kernel.

namespace dp_moe {

namespace {

[[noreturn]] void missing(const char* op) {
  throw Error("NOT_IMPLEMENTED", std::string(op) + " has no CUDA kernel yet");
}

}  // namespace

void CudaBackend::layerNorm(const LayerNormParams&) { missing("layerNorm"); }
void CudaBackend::layerNormBackward(const LayerNormBackwardParams&) { missing("layerNormBackward"); }
void CudaBackend::rmsNorm(const RmsNormParams&) { missing("rmsNorm"); }
void CudaBackend::rmsNormBackward(const RmsNormBackwardParams&) { missing("rmsNormBackward"); }
void CudaBackend::rotaryEmbedding(const RotaryEmbeddingParams&) { missing("rotaryEmbedding"); }
void CudaBackend::crossEntropy(const CrossEntropyParams&) { missing("crossEntropy"); }
void CudaBackend::crossEntropyBackward(const CrossEntropyBackwardParams&) { missing("crossEntropyBackward"); }
void CudaBackend::softmax(const SoftmaxParams&) { missing("softmax"); }

}  // namespace dp_moe
