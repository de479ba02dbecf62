#include "../kernels/normalisation.h"

#include "cuda_backend.h"
#include "row_teams.h"

namespace dp_moe {

namespace {

void launchNorm(Launcher& launcher, const char* name, DType dtype, const NormKernelParams& params) {
  const TeamLaunch team = teamLaunch(name, dtype, params.rows, params.d);
  launcher.launch(team.kernel, team.grid, team.threads, params);
}

void launchBackward(Launcher& launcher, DType dtype, const NormBackwardKernelParams& params) {
  const TeamLaunch team = teamLaunch("normBackward", dtype, params.rows, params.d);
  launcher.launch(team.kernel, team.grid, team.threads, params);
  if (params.dWeight == nullptr && params.dBias == nullptr) return;
  const int64_t columns = 32 * (params.order.packed ? kNormGradientPack : 1);
  launcher.launch(typed("normGradients", dtype),
                  {static_cast<uint32_t>(params.units * ((params.d + columns - 1) / columns))}, kNormGradientWarps * 32,
                  params);
}

}  // namespace

void CudaBackend::layerNorm(const LayerNormParams& p) {
  checkThat(p.d > 0, "layerNorm", "d above 0");
  checkSize(p.x, p.rows * p.d, "layerNorm", "x");
  checkOptionalSize(p.weight, p.d, "layerNorm", "weight");
  checkOptionalSize(p.bias, p.d, "layerNorm", "bias");
  checkSize(p.y, p.rows * p.d, "layerNorm", "y");
  checkSize(p.mean, p.rows, "layerNorm", "mean");
  checkSize(p.rstd, p.rows, "layerNorm", "rstd");
  const DType dtype = realType("layerNorm", {p.x, p.y});
  launchNorm(launcher_, "layerNorm", dtype,
             {p.x.data, p.weight.data, p.bias.data, p.y.data, p.mean.data, p.rstd.data, p.rows, p.d, p.epsilon,
              rowOrder(p.d, dtype, {p.x.data, p.weight.data, p.bias.data, p.y.data})});
}

void CudaBackend::layerNormBackward(const LayerNormBackwardParams& p) {
  checkThat(p.d > 0, "layerNormBackward", "d above 0");
  checkSize(p.dy, p.rows * p.d, "layerNormBackward", "dy");
  checkSize(p.x, p.rows * p.d, "layerNormBackward", "x");
  checkOptionalSize(p.weight, p.d, "layerNormBackward", "weight");
  checkSize(p.mean, p.rows, "layerNormBackward", "mean");
  checkSize(p.rstd, p.rows, "layerNormBackward", "rstd");
  checkSize(p.segmentOffsets, p.units + 1, "layerNormBackward", "segmentOffsets");
  checkSize(p.dx, p.rows * p.d, "layerNormBackward", "dx");
  checkOptionalSize(p.dWeight, p.units * p.d, "layerNormBackward", "dWeight");
  checkOptionalSize(p.dBias, p.units * p.d, "layerNormBackward", "dBias");
  const DType dtype = realType("layerNormBackward", {p.dy, p.x, p.dx});
  launchBackward(launcher_, dtype,
                 {p.dy.data, p.x.data, p.weight.data, p.mean.data, p.rstd.data, p.segmentOffsets.data, p.dx.data,
                  p.dWeight.data, p.dBias.data, offsetsReport(launcher_, "layerNormBackward", "segmentOffsets", p.rows),
                  p.rows, p.d, p.units, rowOrder(p.d, dtype, {p.dy.data, p.x.data, p.weight.data, p.dx.data})});
}

void CudaBackend::rmsNorm(const RmsNormParams& p) {
  checkThat(p.d > 0, "rmsNorm", "d above 0");
  checkSize(p.x, p.rows * p.d, "rmsNorm", "x");
  checkOptionalSize(p.weight, p.d, "rmsNorm", "weight");
  checkSize(p.y, p.rows * p.d, "rmsNorm", "y");
  checkSize(p.rstd, p.rows, "rmsNorm", "rstd");
  const DType dtype = realType("rmsNorm", {p.x, p.y});
  launchNorm(launcher_, "rmsNorm", dtype,
             {p.x.data, p.weight.data, nullptr, p.y.data, nullptr, p.rstd.data, p.rows, p.d, p.epsilon,
              rowOrder(p.d, dtype, {p.x.data, p.weight.data, p.y.data})});
}

void CudaBackend::rmsNormBackward(const RmsNormBackwardParams& p) {
  checkThat(p.d > 0, "rmsNormBackward", "d above 0");
  checkSize(p.dy, p.rows * p.d, "rmsNormBackward", "dy");
  checkSize(p.x, p.rows * p.d, "rmsNormBackward", "x");
  checkOptionalSize(p.weight, p.d, "rmsNormBackward", "weight");
  checkSize(p.rstd, p.rows, "rmsNormBackward", "rstd");
  checkSize(p.segmentOffsets, p.units + 1, "rmsNormBackward", "segmentOffsets");
  checkSize(p.dx, p.rows * p.d, "rmsNormBackward", "dx");
  checkOptionalSize(p.dWeight, p.units * p.d, "rmsNormBackward", "dWeight");
  const DType dtype = realType("rmsNormBackward", {p.dy, p.x, p.dx});
  launchBackward(launcher_, dtype,
                 {p.dy.data, p.x.data, p.weight.data, nullptr, p.rstd.data, p.segmentOffsets.data, p.dx.data,
                  p.dWeight.data, nullptr, offsetsReport(launcher_, "rmsNormBackward", "segmentOffsets", p.rows),
                  p.rows, p.d, p.units, rowOrder(p.d, dtype, {p.dy.data, p.x.data, p.weight.data, p.dx.data})});
}

}  // namespace dp_moe
