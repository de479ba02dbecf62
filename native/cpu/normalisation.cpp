#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

void CpuBackend::layerNorm(const LayerNormParams& p) {
  checkThat(p.d > 0, "layerNorm", "d above 0");
  checkSize(p.x, p.rows * p.d, "layerNorm", "x");
  checkOptionalSize(p.weight, p.d, "layerNorm", "weight");
  checkOptionalSize(p.bias, p.d, "layerNorm", "bias");
  checkSize(p.y, p.rows * p.d, "layerNorm", "y");
  checkSize(p.mean, p.rows, "layerNorm", "mean");
  checkSize(p.rstd, p.rows, "layerNorm", "rstd");
  parallelRanges(threads_, p.rows, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.normalisation.layerNorm(p, begin, end); });
}

void CpuBackend::layerNormBackward(const LayerNormBackwardParams& p) {
  checkThat(p.d > 0, "layerNormBackward", "d above 0");
  checkSize(p.dy, p.rows * p.d, "layerNormBackward", "dy");
  checkSize(p.x, p.rows * p.d, "layerNormBackward", "x");
  checkOptionalSize(p.weight, p.d, "layerNormBackward", "weight");
  checkSize(p.mean, p.rows, "layerNormBackward", "mean");
  checkSize(p.rstd, p.rows, "layerNormBackward", "rstd");
  checkOffsets(p.segmentOffsets, p.units, p.rows, "layerNormBackward", "segmentOffsets");
  checkSize(p.dx, p.rows * p.d, "layerNormBackward", "dx");
  checkOptionalSize(p.dWeight, p.units * p.d, "layerNormBackward", "dWeight");
  checkOptionalSize(p.dBias, p.units * p.d, "layerNormBackward", "dBias");
  parallelRanges(threads_, p.units, 1,
                 [&](int64_t begin, int64_t end) { kernels_.normalisation.layerNormBackward(p, begin, end); });
}

void CpuBackend::rmsNorm(const RmsNormParams& p) {
  checkThat(p.d > 0, "rmsNorm", "d above 0");
  checkSize(p.x, p.rows * p.d, "rmsNorm", "x");
  checkOptionalSize(p.weight, p.d, "rmsNorm", "weight");
  checkSize(p.y, p.rows * p.d, "rmsNorm", "y");
  checkSize(p.rstd, p.rows, "rmsNorm", "rstd");
  parallelRanges(threads_, p.rows, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.normalisation.rmsNorm(p, begin, end); });
}

void CpuBackend::rmsNormBackward(const RmsNormBackwardParams& p) {
  checkThat(p.d > 0, "rmsNormBackward", "d above 0");
  checkSize(p.dy, p.rows * p.d, "rmsNormBackward", "dy");
  checkSize(p.x, p.rows * p.d, "rmsNormBackward", "x");
  checkOptionalSize(p.weight, p.d, "rmsNormBackward", "weight");
  checkSize(p.rstd, p.rows, "rmsNormBackward", "rstd");
  checkOffsets(p.segmentOffsets, p.units, p.rows, "rmsNormBackward", "segmentOffsets");
  checkSize(p.dx, p.rows * p.d, "rmsNormBackward", "dx");
  checkOptionalSize(p.dWeight, p.units * p.d, "rmsNormBackward", "dWeight");
  parallelRanges(threads_, p.units, 1,
                 [&](int64_t begin, int64_t end) { kernels_.normalisation.rmsNormBackward(p, begin, end); });
}

}  // namespace dp_moe
