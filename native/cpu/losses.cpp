#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

void CpuBackend::crossEntropy(const CrossEntropyParams& p) {
  checkThat(p.classes > 0, "crossEntropy", "classes above 0");
  checkSize(p.logits, p.rows * p.classes, "crossEntropy", "logits");
  checkSize(p.targets, p.rows, "crossEntropy", "targets");
  checkSize(p.loss, p.rows, "crossEntropy", "loss");
  checkSize(p.logSumExp, p.rows, "crossEntropy", "logSumExp");
  checkIndices(p.targets, p.rows, -1, p.classes, "crossEntropy", "targets");
  parallelRanges(threads_, p.rows, rowsPerTask(p.classes),
                 [&](int64_t begin, int64_t end) { kernels_.losses.crossEntropy(p, begin, end); });
}

void CpuBackend::crossEntropyBackward(const CrossEntropyBackwardParams& p) {
  checkThat(p.classes > 0, "crossEntropyBackward", "classes above 0");
  checkSize(p.dLoss, p.rows, "crossEntropyBackward", "dLoss");
  checkSize(p.logits, p.rows * p.classes, "crossEntropyBackward", "logits");
  checkSize(p.targets, p.rows, "crossEntropyBackward", "targets");
  checkSize(p.logSumExp, p.rows, "crossEntropyBackward", "logSumExp");
  checkSize(p.dLogits, p.rows * p.classes, "crossEntropyBackward", "dLogits");
  checkIndices(p.targets, p.rows, -1, p.classes, "crossEntropyBackward", "targets");
  parallelRanges(threads_, p.rows, rowsPerTask(p.classes),
                 [&](int64_t begin, int64_t end) { kernels_.losses.crossEntropyBackward(p, begin, end); });
}

void CpuBackend::softmax(const SoftmaxParams& p) {
  checkThat(p.d > 0, "softmax", "d above 0");
  checkSize(p.x, p.rows * p.d, "softmax", "x");
  checkSize(p.y, p.rows * p.d, "softmax", "y");
  parallelRanges(threads_, p.rows, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.losses.softmax(p, begin, end); });
}

}  // namespace dp_moe
