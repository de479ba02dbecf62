#include "kernels/loss_kernels.h"
#include "kernels/softmax.h"

namespace dp_moe::DP_MOE_ISA {

namespace {

void crossEntropy(const CrossEntropyParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.logits.data + r * p.classes;
    const int32_t target = p.targets.data[r];
    if (target < 0) {
      p.loss.data[r] = 0;
      p.logSumExp.data[r] = 0;
      continue;
    }
    const LogSum log = logSumOfRow(x, p.classes);
    p.logSumExp.data[r] = log.max + log.logOfSum;
    // The difference first: exact where the target is near the maximum, however large both are.
    p.loss.data[r] = (log.max - x[target]) + log.logOfSum;
  }
}

void crossEntropyBackward(const CrossEntropyBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = p.logits.data + r * p.classes;
    float* dx = p.dLogits.data + r * p.classes;
    const int32_t target = p.targets.data[r];
    if (target < 0) {
      forVectors(p.classes, [&]<bool full>(int64_t c, int64_t n) { write<full>(dx + c, vf{}, n); });
      continue;
    }
    const float scale = p.dLoss.data[r];
    const float logSumExp = p.logSumExp.data[r];
    const vi lane = lanes();
    forVectors(p.classes, [&]<bool full>(int64_t c, int64_t n) {
      const vf probability = exp(read<full>(x + c, n) - logSumExp);
      const vi chosen = lane == static_cast<int32_t>(target - c);
      write<full>(dx + c, select(chosen, probability - 1.0f, probability) * scale, n);
    });
  }
}

void softmax(const SoftmaxParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) softmaxOfRow(p.x.data + r * p.d, p.y.data + r * p.d, p.d);
}

}  // namespace

extern const LossKernels lossKernels;
const LossKernels lossKernels = {
    .crossEntropy = crossEntropy,
    .crossEntropyBackward = crossEntropyBackward,
    .softmax = softmax,
};

}  // namespace dp_moe::DP_MOE_ISA
