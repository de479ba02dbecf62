#include "../kernels/clip_factors.h"

#include "cuda_backend.h"
#include "norm_checks.h"
#include "reports.h"

namespace dp_moe {

void CudaBackend::clipFactors(const ClipFactorsParams& p) {
  constexpr const char* op = "clipFactors";
  checkSizes(p);
  const Report wrongBound{launcher_.status(), launcher_.errorCode([](int32_t group) {
                            return Error("INVALID_ARGUMENT",
                                         std::string(op) +
                                             ": expected finite bounds of at least 0, but that of group " +
                                             std::to_string(group) + " is not");
                          })};
  const ClipFactorsKernelParams params{p, wrongBound};
  const auto blocks = static_cast<uint32_t>((p.units + kClipThreads - 1) / kClipThreads);
  launcher_.launch("clipFactors", {blocks, 1}, kClipThreads, params);
  launcher_.launch("clipStatistics", {static_cast<uint32_t>(p.groups), 1}, kClipThreads, params);
}

}  // namespace dp_moe
