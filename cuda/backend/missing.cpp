#include <string>

#include "cuda_backend.h"
#include "error.h"

// The ops without a CUDA kernel.

namespace dp_moe {

namespace {

[[noreturn]] void missing(const char* op) {
  throw Error("NOT_IMPLEMENTED", std::string(op) + " has no CUDA kernel yet");
}

}  // namespace

void CudaBackend::matrixMultiply(const MatrixMultiplyParams&) { missing("matrixMultiply"); }
void CudaBackend::weightGradient(const WeightGradientParams&) { missing("weightGradient"); }
void CudaBackend::segmentGradientNorms(const SegmentGradientNormsParams&) { missing("segmentGradientNorms"); }
void CudaBackend::segmentBiasNorms(const SegmentBiasNormsParams&) { missing("segmentBiasNorms"); }
void CudaBackend::biasGradient(const BiasGradientParams&) { missing("biasGradient"); }
void CudaBackend::embeddingGradientNorms(const EmbeddingGradientNormsParams&) { missing("embeddingGradientNorms"); }
void CudaBackend::embeddingGradient(const EmbeddingGradientParams&) { missing("embeddingGradient"); }
void CudaBackend::tiedEmbeddingNorms(const TiedEmbeddingNormsParams&) { missing("tiedEmbeddingNorms"); }
void CudaBackend::clipFactors(const ClipFactorsParams&) { missing("clipFactors"); }
void CudaBackend::embedding(const EmbeddingParams&) { missing("embedding"); }
void CudaBackend::pool(const PoolParams&) { missing("pool"); }
void CudaBackend::poolBackward(const PoolBackwardParams&) { missing("poolBackward"); }
void CudaBackend::gatherRows(const GatherRowsParams&) { missing("gatherRows"); }
void CudaBackend::combineRows(const CombineRowsParams&) { missing("combineRows"); }
void CudaBackend::concatenateRows(const ConcatenateRowsParams&) { missing("concatenateRows"); }
void CudaBackend::concatenateIndices(const ConcatenateIndicesParams&) { missing("concatenateIndices"); }
void CudaBackend::cast(const CastParams&) { missing("cast"); }
void CudaBackend::add(const AddParams&) { missing("add"); }
void CudaBackend::multiply(const MultiplyParams&) { missing("multiply"); }
void CudaBackend::clamp(const ClampParams&) { missing("clamp"); }
void CudaBackend::clampBackward(const ClampBackwardParams&) { missing("clampBackward"); }
void CudaBackend::activation(const ActivationParams&) { missing("activation"); }
void CudaBackend::activationBackward(const ActivationBackwardParams&) { missing("activationBackward"); }
void CudaBackend::gatedActivation(const GatedActivationParams&) { missing("gatedActivation"); }
void CudaBackend::gatedActivationBackward(const GatedActivationBackwardParams&) { missing("gatedActivationBackward"); }
void CudaBackend::rowDot(const RowDotParams&) { missing("rowDot"); }
void CudaBackend::dropout(const DropoutParams&) { missing("dropout"); }
void CudaBackend::jitter(const JitterParams&) { missing("jitter"); }
void CudaBackend::layerNorm(const LayerNormParams&) { missing("layerNorm"); }
void CudaBackend::layerNormBackward(const LayerNormBackwardParams&) { missing("layerNormBackward"); }
void CudaBackend::rmsNorm(const RmsNormParams&) { missing("rmsNorm"); }
void CudaBackend::rmsNormBackward(const RmsNormBackwardParams&) { missing("rmsNormBackward"); }
void CudaBackend::rotaryEmbedding(const RotaryEmbeddingParams&) { missing("rotaryEmbedding"); }
void CudaBackend::attention(const AttentionParams&) { missing("attention"); }
void CudaBackend::attentionBackward(const AttentionBackwardParams&) { missing("attentionBackward"); }
void CudaBackend::topKRouting(const TopKRoutingParams&) { missing("topKRouting"); }
void CudaBackend::topKRoutingBackward(const TopKRoutingBackwardParams&) { missing("topKRoutingBackward"); }
void CudaBackend::routingPlan(const RoutingPlanParams&) { missing("routingPlan"); }
void CudaBackend::scatterToSlots(const ScatterToSlotsParams&) { missing("scatterToSlots"); }
void CudaBackend::unitLoads(const UnitLoadsParams&) { missing("unitLoads"); }
void CudaBackend::routerLoss(const RouterLossParams&) { missing("routerLoss"); }
void CudaBackend::routerLossBackward(const RouterLossBackwardParams&) { missing("routerLossBackward"); }
void CudaBackend::crossEntropy(const CrossEntropyParams&) { missing("crossEntropy"); }
void CudaBackend::crossEntropyBackward(const CrossEntropyBackwardParams&) { missing("crossEntropyBackward"); }
void CudaBackend::softmax(const SoftmaxParams&) { missing("softmax"); }
void CudaBackend::noisySgd(const NoisySgdParams&) { missing("noisySgd"); }
void CudaBackend::noisyAdam(const NoisyAdamParams&) { missing("noisyAdam"); }
void CudaBackend::gaussian(const GaussianParams&) { missing("gaussian"); }

}  // namespace dp_moe
