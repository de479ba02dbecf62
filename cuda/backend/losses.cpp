#include "../kernels/losses.h"

#include "cuda_backend.h"
#include "row_teams.h"

namespace dp_moe {

void CudaBackend::crossEntropy(const CrossEntropyParams& p) {
  checkThat(p.classes > 0, "crossEntropy", "classes above 0");
  checkSize(p.logits, p.rows * p.classes, "crossEntropy", "logits");
  checkSize(p.targets, p.rows, "crossEntropy", "targets");
  checkSize(p.loss, p.rows, "crossEntropy", "loss");
  checkSize(p.logSumExp, p.rows, "crossEntropy", "logSumExp");
  const DType dtype = realType("crossEntropy", {p.logits});
  const TeamLaunch team = teamLaunch("crossEntropy", dtype, p.rows, p.classes);
  launcher_.launch(team.kernel, team.grid, team.threads,
                   CrossEntropyKernelParams{p.logits.data, p.targets.data, p.loss.data, p.logSumExp.data,
                                            indexReport(launcher_, "crossEntropy", "targets", -1, p.classes), p.rows,
                                            p.classes, rowOrder(p.classes, dtype, {p.logits.data})});
}

void CudaBackend::crossEntropyBackward(const CrossEntropyBackwardParams& p) {
  checkThat(p.classes > 0, "crossEntropyBackward", "classes above 0");
  checkSize(p.dLoss, p.rows, "crossEntropyBackward", "dLoss");
  checkSize(p.logits, p.rows * p.classes, "crossEntropyBackward", "logits");
  checkSize(p.targets, p.rows, "crossEntropyBackward", "targets");
  checkSize(p.logSumExp, p.rows, "crossEntropyBackward", "logSumExp");
  checkSize(p.dLogits, p.rows * p.classes, "crossEntropyBackward", "dLogits");
  const DType dtype = realType("crossEntropyBackward", {p.logits, p.dLogits});
  const TeamLaunch team = teamLaunch("crossEntropyBackward", dtype, p.rows, p.classes);
  launcher_.launch(
      team.kernel, team.grid, team.threads,
      CrossEntropyBackwardKernelParams{p.dLoss.data, p.logits.data, p.targets.data, p.logSumExp.data, p.dLogits.data,
                                       indexReport(launcher_, "crossEntropyBackward", "targets", -1, p.classes), p.rows,
                                       p.classes, rowOrder(p.classes, dtype, {p.logits.data, p.dLogits.data})});
}

void CudaBackend::softmax(const SoftmaxParams& p) {
  checkThat(p.d > 0, "softmax", "d above 0");
  checkSize(p.x, p.rows * p.d, "softmax", "x");
  checkSize(p.y, p.rows * p.d, "softmax", "y");
  const DType dtype = realType("softmax", {p.x, p.y});
  const TeamLaunch team = teamLaunch("softmax", dtype, p.rows, p.d);
  launcher_.launch(team.kernel, team.grid, team.threads,
                   SoftmaxKernelParams{p.x.data, p.y.data, p.rows, p.d, rowOrder(p.d, dtype, {p.x.data, p.y.data})});
}

}  // namespace dp_moe
