#include <string>

#include "checks.h"
#include "cpu_backend.h"

namespace dp_moe {

namespace {

template <class P>
void checkAttention(const P& p, const char* op) {
  checkThat(p.heads > 0 && p.keyValueHeads > 0 && p.heads % p.keyValueHeads == 0 && p.headSize > 0, op,
            "heads to be a multiple of keyValueHeads, both and headSize above 0, got " + std::to_string(p.heads) +
                ", " + std::to_string(p.keyValueHeads) + " and " + std::to_string(p.headSize));
  checkSize(p.q, p.rows * p.heads * p.headSize, op, "q");
  checkSize(p.k, p.rows * p.keyValueHeads * p.headSize, op, "k");
  checkSize(p.v, p.rows * p.keyValueHeads * p.headSize, op, "v");
  checkSize(p.y, p.rows * p.heads * p.headSize, op, "y");
  checkSize(p.logSumExp, p.rows * p.heads, op, "logSumExp");
  checkOffsets(p.offsets, p.units, p.rows, op, "offsets");
}

}  // namespace

void CpuBackend::attention(const AttentionParams& p) {
  checkAttention(p, "attention");
  const int64_t scratchSize = kernels_.attention.scratchSize(p.headSize);
  threads_.parallelFor(p.units * p.keyValueHeads, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(scratchSize);
    kernels_.attention.attention(p, task / p.keyValueHeads, task % p.keyValueHeads, scratch);
  });
}

void CpuBackend::attentionBackward(const AttentionBackwardParams& p) {
  checkAttention(p, "attentionBackward");
  checkSize(p.dy, p.rows * p.heads * p.headSize, "attentionBackward", "dy");
  checkSize(p.dq, p.rows * p.heads * p.headSize, "attentionBackward", "dq");
  checkSize(p.dk, p.rows * p.keyValueHeads * p.headSize, "attentionBackward", "dk");
  checkSize(p.dv, p.rows * p.keyValueHeads * p.headSize, "attentionBackward", "dv");
  const int64_t scratchSize = kernels_.attention.scratchSize(p.headSize);
  threads_.parallelFor(p.units * p.keyValueHeads, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(scratchSize);
    kernels_.attention.attentionBackward(p, task / p.keyValueHeads, task % p.keyValueHeads, scratch);
  });
}

}  // namespace dp_moe
