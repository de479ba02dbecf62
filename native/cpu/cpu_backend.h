#pragma once

#include <vector>

#include "backend.h"
#include "kernels/kernel_table.h"
#include "scratch.h"
#include "thread_pool.h"

namespace dp_moe {

/// The ops on the CPU, one file per family. Each checks its operands, splits its outputs over the pool's threads and
/// calls the kernels of one instruction set. One op runs at a time.
class CpuBackend final : public Backend {
 public:
  CpuBackend(ThreadPool& threads, const KernelTable& kernels);

  void matrixMultiply(const MatrixMultiplyParams&) override;
  void weightGradient(const WeightGradientParams&) override;

  void segmentGradientNorms(const SegmentGradientNormsParams&) override;
  void segmentBiasNorms(const SegmentBiasNormsParams&) override;
  void biasGradient(const BiasGradientParams&) override;
  void embeddingGradientNorms(const EmbeddingGradientNormsParams&) override;
  void embeddingGradient(const EmbeddingGradientParams&) override;
  void tiedEmbeddingNorms(const TiedEmbeddingNormsParams&) override;
  void clipFactors(const ClipFactorsParams&) override;

  void embedding(const EmbeddingParams&) override;
  void pool(const PoolParams&) override;
  void poolBackward(const PoolBackwardParams&) override;
  void gatherRows(const GatherRowsParams&) override;
  void combineRows(const CombineRowsParams&) override;
  void concatenateRows(const ConcatenateRowsParams&) override;
  void concatenateIndices(const ConcatenateIndicesParams&) override;

  void cast(const CastParams&) override;
  void add(const AddParams&) override;
  void multiply(const MultiplyParams&) override;
  void clamp(const ClampParams&) override;
  void clampBackward(const ClampBackwardParams&) override;
  void activation(const ActivationParams&) override;
  void activationBackward(const ActivationBackwardParams&) override;
  void gatedActivation(const GatedActivationParams&) override;
  void gatedActivationBackward(const GatedActivationBackwardParams&) override;
  void rowDot(const RowDotParams&) override;
  void dropout(const DropoutParams&) override;
  void jitter(const JitterParams&) override;

  void layerNorm(const LayerNormParams&) override;
  void layerNormBackward(const LayerNormBackwardParams&) override;
  void rmsNorm(const RmsNormParams&) override;
  void rmsNormBackward(const RmsNormBackwardParams&) override;

  void rotaryEmbedding(const RotaryEmbeddingParams&) override;
  void attention(const AttentionParams&) override;
  void attentionBackward(const AttentionBackwardParams&) override;

  void topKRouting(const TopKRoutingParams&) override;
  void topKRoutingBackward(const TopKRoutingBackwardParams&) override;
  void routingPlan(const RoutingPlanParams&) override;
  void scatterToSlots(const ScatterToSlotsParams&) override;
  void unitLoads(const UnitLoadsParams&) override;
  void routerLoss(const RouterLossParams&) override;
  void routerLossBackward(const RouterLossBackwardParams&) override;

  void crossEntropy(const CrossEntropyParams&) override;
  void crossEntropyBackward(const CrossEntropyBackwardParams&) override;
  void softmax(const SoftmaxParams&) override;

  void noisySgd(const NoisySgdParams&) override;
  void noisyAdam(const NoisyAdamParams&) override;
  void gaussian(const GaussianParams&) override;

 private:
  ThreadPool& threads_;
  const KernelTable& kernels_;
  Scratch shared_;                      // what all threads of an op read
  Scratch packed_;                      // panels of operands, beside it
  std::vector<Scratch> threadScratch_;  // [threads]: what one thread works in
};

}  // namespace dp_moe
