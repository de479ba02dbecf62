#include <cmath>
#include <string>

#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

namespace {

template <class P>
void checkAttention(const P& p, const char* op) {
  checkThat(p.heads > 0 && p.keyValueHeads > 0 && p.heads % p.keyValueHeads == 0 && p.headSize > 0, op,
            "heads to be a multiple of keyValueHeads, both and headSize above 0, got " + std::to_string(p.heads) +
                ", " + std::to_string(p.keyValueHeads) + " and " + std::to_string(p.headSize));
  checkSize(p.q, p.rows * p.heads * p.headSize, op, "q");
  const int64_t keyWidth = p.keyValueHeads * p.headSize;
  if (p.keyOffsets.data == nullptr) {
    checkSize(p.k, p.rows * keyWidth, op, "k");
  } else {
    checkColumns(p.k, keyWidth, op, "k");
    checkOffsets(p.keyOffsets, p.units, p.k.size / keyWidth, op, "keyOffsets");
  }
  checkSize(p.v, p.k.size, op, "v");
  checkSize(p.y, p.rows * p.heads * p.headSize, op, "y");
  checkSize(p.logSumExp, p.rows * p.heads, op, "logSumExp");
  checkOffsets(p.offsets, p.units, p.rows, op, "offsets");
  if (p.bias.data == nullptr) return;
  checkThat(p.span > 0, op, "a span above 0 with a bias, got " + std::to_string(p.span));
  checkSize(p.bias, (2 * p.span - 1) * p.heads, op, "bias");
}

/// Floats of scratch per thread: the kernels' tiles, and for each of a task's heads a bias and its gradient.
template <class P>
int64_t scratchFloats(const P& p, int64_t tiles) {
  return tiles + (p.bias.data == nullptr ? 0 : (p.heads / p.keyValueHeads + 1) * (2 * p.span - 1));
}

}  // namespace

void CpuBackend::attention(const AttentionParams& p) {
  checkAttention(p, "attention");
  const int64_t scratchSize = scratchFloats(p, kernels_.attention.scratchSize(p.headSize));
  threads_.parallelFor(p.units * p.keyValueHeads, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(scratchSize);
    kernels_.attention.attention(p, task / p.keyValueHeads, task % p.keyValueHeads, scratch);
  });
}

void CpuBackend::attentionBackward(const AttentionBackwardParams& p) {
  checkAttention(p, "attentionBackward");
  checkSize(p.dy, p.rows * p.heads * p.headSize, "attentionBackward", "dy");
  checkSize(p.dq, p.rows * p.heads * p.headSize, "attentionBackward", "dq");
  checkSize(p.dk, p.k.size, "attentionBackward", "dk");
  checkSize(p.dv, p.k.size, "attentionBackward", "dv");
  checkThat(p.dBias.data == nullptr || p.bias.data != nullptr, "attentionBackward", "a bias where dBias is asked for");
  checkOptionalSize(p.dBias, p.units * (2 * p.span - 1) * p.heads, "attentionBackward", "dBias");
  const int64_t scratchSize = scratchFloats(p, kernels_.attention.scratchSize(p.headSize));
  threads_.parallelFor(p.units * p.keyValueHeads, [&](int64_t task, int thread) {
    float* scratch = threadScratch_[static_cast<size_t>(thread)].take<float>(scratchSize);
    kernels_.attention.attentionBackward(p, task / p.keyValueHeads, task % p.keyValueHeads, scratch);
  });
}

void CpuBackend::rotaryEmbedding(const RotaryEmbeddingParams& p) {
  checkThat(
      p.heads > 0 && p.headSize > 0 && p.headSize % 2 == 0, "rotaryEmbedding",
      "heads above 0 and an even headSize, got " + std::to_string(p.heads) + " and " + std::to_string(p.headSize));
  const int64_t half = p.headSize / 2;
  checkSize(p.x, p.rows * p.heads * p.headSize, "rotaryEmbedding", "x");
  checkSize(p.positions, p.rows, "rotaryEmbedding", "positions");
  checkSize(p.inverseFrequency, half, "rotaryEmbedding", "inverseFrequency");
  checkSize(p.y, p.rows * p.heads * p.headSize, "rotaryEmbedding", "y");
  const int64_t perTask = rowsPerTask(p.heads * p.headSize);
  threads_.parallelFor((p.rows + perTask - 1) / perTask, [&](int64_t task, int thread) {
    float* cosine = threadScratch_[static_cast<size_t>(thread)].take<float>(2 * half);
    float* sine = cosine + half;
    for (int64_t row = task * perTask; row < std::min((task + 1) * perTask, p.rows); ++row) {
      for (int64_t c = 0; c < half; ++c) {
        const float angle = static_cast<float>(p.positions.data[row]) * p.inverseFrequency.data[c];
        cosine[c] = static_cast<float>(std::cos(static_cast<double>(angle)));
        sine[c] = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
      kernels_.elementwise.rotateRow(p, row, cosine, sine);
    }
  });
}

}  // namespace dp_moe
