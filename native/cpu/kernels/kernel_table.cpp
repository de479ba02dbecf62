#include "kernels/kernel_table.h"

#include "kernels/simd.h"

#define DP_MOE_STRING(x) #x
#define DP_MOE_NAME(x) DP_MOE_STRING(x)

namespace dp_moe::DP_MOE_ISA {

extern const MatrixKernels matrixKernels;
extern const NormKernels normKernels;

const KernelTable& kernelTable() {
  static const KernelTable table = {
      .name = DP_MOE_NAME(DP_MOE_ISA),
      .vectorWidth = W,
      .matrix = matrixKernels,
      .norms = normKernels,
  };
  return table;
}

}  // namespace dp_moe::DP_MOE_ISA
