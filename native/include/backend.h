#pragma once

#include "params.h"

namespace dp_moe {

/// The list of ops. A backend implements every one of them; a binding, a typed signature and a conformance test exist
/// for each under the same name. Ops run on the device's stream, in order; a failure is thrown as dp_moe::Error.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual void matrixMultiply(const MatrixMultiplyParams&) = 0;
  virtual void weightGradient(const WeightGradientParams&) = 0;

  virtual void segmentGradientNorms(const SegmentGradientNormsParams&) = 0;
  virtual void segmentBiasNorms(const SegmentBiasNormsParams&) = 0;
  virtual void biasGradient(const BiasGradientParams&) = 0;
  virtual void embeddingGradientNorms(const EmbeddingGradientNormsParams&) = 0;
  virtual void embeddingGradient(const EmbeddingGradientParams&) = 0;
  virtual void tiedEmbeddingNorms(const TiedEmbeddingNormsParams&) = 0;
  virtual void clipFactors(const ClipFactorsParams&) = 0;

  virtual void embedding(const EmbeddingParams&) = 0;
  virtual void pool(const PoolParams&) = 0;
  virtual void poolBackward(const PoolBackwardParams&) = 0;
  virtual void gatherRows(const GatherRowsParams&) = 0;
  virtual void combineRows(const CombineRowsParams&) = 0;
  virtual void concatenateRows(const ConcatenateRowsParams&) = 0;
  virtual void concatenateIndices(const ConcatenateIndicesParams&) = 0;

  virtual void cast(const CastParams&) = 0;
  virtual void add(const AddParams&) = 0;
  virtual void multiply(const MultiplyParams&) = 0;
  virtual void clamp(const ClampParams&) = 0;
  virtual void clampBackward(const ClampBackwardParams&) = 0;
  virtual void activation(const ActivationParams&) = 0;
  virtual void activationBackward(const ActivationBackwardParams&) = 0;
  virtual void gatedActivation(const GatedActivationParams&) = 0;
  virtual void gatedActivationBackward(const GatedActivationBackwardParams&) = 0;
  virtual void rowDot(const RowDotParams&) = 0;
  virtual void dropout(const DropoutParams&) = 0;
  virtual void jitter(const JitterParams&) = 0;

  virtual void layerNorm(const LayerNormParams&) = 0;
  virtual void layerNormBackward(const LayerNormBackwardParams&) = 0;
  virtual void rmsNorm(const RmsNormParams&) = 0;
  virtual void rmsNormBackward(const RmsNormBackwardParams&) = 0;

  virtual void rotaryEmbedding(const RotaryEmbeddingParams&) = 0;
  virtual void attention(const AttentionParams&) = 0;
  virtual void attentionBackward(const AttentionBackwardParams&) = 0;

  virtual void topKRouting(const TopKRoutingParams&) = 0;
  virtual void topKRoutingBackward(const TopKRoutingBackwardParams&) = 0;
  virtual void routingPlan(const RoutingPlanParams&) = 0;
  virtual void scatterToSlots(const ScatterToSlotsParams&) = 0;
  virtual void unitLoads(const UnitLoadsParams&) = 0;
  virtual void routerLoss(const RouterLossParams&) = 0;
  virtual void routerLossBackward(const RouterLossBackwardParams&) = 0;

  virtual void crossEntropy(const CrossEntropyParams&) = 0;
  virtual void crossEntropyBackward(const CrossEntropyBackwardParams&) = 0;
  virtual void softmax(const SoftmaxParams&) = 0;

  virtual void noisySgd(const NoisySgdParams&) = 0;
  virtual void noisyAdam(const NoisyAdamParams&) = 0;
  virtual void gaussian(const GaussianParams&) = 0;
};

}  // namespace dp_moe
