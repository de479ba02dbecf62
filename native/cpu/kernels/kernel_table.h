#pragma once

#include "kernels/matrix_kernels.h"
#include "kernels/norm_kernels.h"

namespace dp_moe {

/// The kernels of one instruction set: plain function pointers, one member per family.
struct KernelTable {
  const char* name;
  int vectorWidth;  // floats per vector register
  MatrixKernels matrix;
  NormKernels norms;
};

}  // namespace dp_moe
