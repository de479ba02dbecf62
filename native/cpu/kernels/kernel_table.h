#pragma once

#include "kernels/attention_kernels.h"
#include "kernels/elementwise_kernels.h"
#include "kernels/loss_kernels.h"
#include "kernels/mask_kernels.h"
#include "kernels/matrix_kernels.h"
#include "kernels/norm_kernels.h"
#include "kernels/normalisation_kernels.h"
#include "kernels/routing_kernels.h"
#include "kernels/row_kernels.h"
#include "kernels/update_kernels.h"

namespace dp_moe {

/// The kernels of one instruction set: plain function pointers, one member per family.
struct KernelTable {
  const char* name;
  int vectorWidth;  // floats per vector register
  MatrixKernels matrix;
  NormKernels norms;
  RowKernels rows;
  ElementwiseKernels elementwise;
  MaskKernels masks;
  NormalisationKernels normalisation;
  AttentionKernels attention;
  RoutingKernels routing;
  LossKernels losses;
  UpdateKernels updates;
};

}  // namespace dp_moe
