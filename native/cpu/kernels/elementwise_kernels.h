#pragma once

#include "params.h"

namespace dp_moe {

/// [begin, end) are elements, or rows where the op has rows.
struct ElementwiseKernels {
  void (*add)(const AddParams&, int64_t begin, int64_t end);
  void (*multiply)(const MultiplyParams&, int64_t begin, int64_t end);
  void (*clamp)(const ClampParams&, int64_t begin, int64_t end);
  void (*clampBackward)(const ClampBackwardParams&, int64_t begin, int64_t end);
  void (*activation)(const ActivationParams&, int64_t begin, int64_t end);
  void (*activationBackward)(const ActivationBackwardParams&, int64_t begin, int64_t end);
  void (*gatedActivation)(const GatedActivationParams&, int64_t begin, int64_t end);
  void (*gatedActivationBackward)(const GatedActivationBackwardParams&, int64_t begin, int64_t end);
  void (*rowDot)(const RowDotParams&, int64_t begin, int64_t end);
  /// cosine, sine [headSize / 2] of row `row`.
  void (*rotateRow)(const RotaryEmbeddingParams&, int64_t row, const float* cosine, const float* sine);
};

}  // namespace dp_moe
