#include "kernels/kernel_table.h"

#include "kernels/simd.h"

#define DP_MOE_STRING(x) #x
#define DP_MOE_NAME(x) DP_MOE_STRING(x)

namespace dp_moe::DP_MOE_ISA {

extern const MatrixKernels matrixKernels;
extern const NormKernels normKernels;
extern const RowKernels rowKernels;
extern const ElementwiseKernels elementwiseKernels;
extern const MaskKernels maskKernels;
extern const NormalisationKernels normalisationKernels;
extern const AttentionKernels attentionKernels;
extern const RoutingKernels routingKernels;
extern const LossKernels lossKernels;
extern const UpdateKernels updateKernels;

const KernelTable& kernelTable() {
  static const KernelTable table = {
      .name = DP_MOE_NAME(DP_MOE_ISA),
      .vectorWidth = W,
      .matrix = matrixKernels,
      .norms = normKernels,
      .rows = rowKernels,
      .elementwise = elementwiseKernels,
      .masks = maskKernels,
      .normalisation = normalisationKernels,
      .attention = attentionKernels,
      .routing = routingKernels,
      .losses = lossKernels,
      .updates = updateKernels,
  };
  return table;
}

}  // namespace dp_moe::DP_MOE_ISA
