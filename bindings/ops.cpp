#include "op.h"

namespace dp_moe {

const std::vector<OpBinding>& allOps() {
  // Never destroyed: process.exit may run while a stream still works.
  static const auto& ops = *new std::vector<OpBinding>{
      op<&Backend::matrixMultiply>("matrixMultiply"),
      op<&Backend::weightGradient>("weightGradient"),
      op<&Backend::segmentGradientNorms>("segmentGradientNorms"),
      op<&Backend::segmentBiasNorms>("segmentBiasNorms"),
      op<&Backend::biasGradient>("biasGradient"),
      op<&Backend::embeddingGradientNorms>("embeddingGradientNorms"),
      op<&Backend::embeddingGradient>("embeddingGradient"),
      op<&Backend::tiedEmbeddingNorms>("tiedEmbeddingNorms"),
      op<&Backend::clipFactors>("clipFactors"),
      op<&Backend::embedding>("embedding"),
      op<&Backend::pool>("pool"),
      op<&Backend::poolBackward>("poolBackward"),
      op<&Backend::gatherRows>("gatherRows"),
      op<&Backend::combineRows>("combineRows"),
      op<&Backend::concatenateRows>("concatenateRows"),
      op<&Backend::concatenateIndices>("concatenateIndices"),
      op<&Backend::cast>("cast"),
      op<&Backend::add>("add"),
      op<&Backend::multiply>("multiply"),
      op<&Backend::clamp>("clamp"),
      op<&Backend::clampBackward>("clampBackward"),
      op<&Backend::activation>("activation"),
      op<&Backend::activationBackward>("activationBackward"),
      op<&Backend::gatedActivation>("gatedActivation"),
      op<&Backend::gatedActivationBackward>("gatedActivationBackward"),
      op<&Backend::rowDot>("rowDot"),
      op<&Backend::dropout>("dropout"),
      op<&Backend::jitter>("jitter"),
      op<&Backend::layerNorm>("layerNorm"),
      op<&Backend::layerNormBackward>("layerNormBackward"),
      op<&Backend::rmsNorm>("rmsNorm"),
      op<&Backend::rmsNormBackward>("rmsNormBackward"),
      op<&Backend::rotaryEmbedding>("rotaryEmbedding"),
      op<&Backend::attention>("attention"),
      op<&Backend::attentionBackward>("attentionBackward"),
      op<&Backend::topKRouting>("topKRouting"),
      op<&Backend::topKRoutingBackward>("topKRoutingBackward"),
      op<&Backend::routingPlan>("routingPlan"),
      op<&Backend::scatterToSlots>("scatterToSlots"),
      op<&Backend::unitLoads>("unitLoads"),
      op<&Backend::routerLoss>("routerLoss"),
      op<&Backend::routerLossBackward>("routerLossBackward"),
      op<&Backend::crossEntropy>("crossEntropy"),
      op<&Backend::crossEntropyBackward>("crossEntropyBackward"),
      op<&Backend::softmax>("softmax"),
      op<&Backend::noisySgd>("noisySgd"),
      op<&Backend::noisyAdam>("noisyAdam"),
      op<&Backend::gaussian>("gaussian"),
  };
  return ops;
}

}  // namespace dp_moe
