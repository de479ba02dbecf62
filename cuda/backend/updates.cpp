#include "../kernels/updates.h"

#include "cuda_backend.h"
#include "update_checks.h"

namespace dp_moe {

namespace {

/// Blocks of threads for the elements [first, first + size) of a stream.
Dim gridFor(int64_t first, int64_t size) {
  if (size == 0) return {0, 1};
  const int64_t groups = (first + size - 1) / kNormalsPerGroup - first / kNormalsPerGroup + 1;
  constexpr int64_t kGroups = kUpdateThreads / kBlocksPerGroup;
  return {static_cast<uint32_t>((groups + kGroups - 1) / kGroups), 1};
}

}  // namespace

void CudaBackend::noisySgd(const NoisySgdParams& p) {
  check(p);
  launcher_.launch("noisySgd", gridFor(0, p.size), kUpdateThreads, p);
}

void CudaBackend::noisyAdam(const NoisyAdamParams& p) {
  check(p);
  launcher_.launch("noisyAdam", gridFor(0, p.size), kUpdateThreads, p);
}

void CudaBackend::gaussian(const GaussianParams& p) {
  check(p);
  launcher_.launch("gaussian", gridFor(p.first, p.size), kUpdateThreads, p);
}

}  // namespace dp_moe
