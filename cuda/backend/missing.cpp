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

void CudaBackend::rotaryEmbedding(const RotaryEmbeddingParams&) { missing("rotaryEmbedding"); }

}  // namespace dp_moe
