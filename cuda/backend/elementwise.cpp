#include "../kernels/elementwise.h"

#include <string>

#include "checks.h"
#include "cuda_backend.h"
#include "row_grids.h"

namespace dp_moe {

namespace {

void checkActivation(Activation kind, const char* op) {
  checkThat(kind >= Activation::none && kind <= Activation::tanh, op,
            "an activation from none (0) to tanh (5), got " + std::to_string(static_cast<int32_t>(kind)));
}

/// A thread per pack of the wider type.
void launchElements(Launcher& launcher, const std::string& kernel, DType dtype, const ElementsKernelParams& params) {
  launcher.launch(kernel, {blocksFor(params.size, kElementwiseThreads * packOf(dtype))}, kElementwiseThreads, params);
}

/// Of the ops on rows, whose real operands are these.
RowWalk walkOf(int64_t rows, int64_t d, const Input<int32_t>& countOffsets, DType dtype,
               std::initializer_list<const void*> operands) {
  return rowWalk(rows, d, countOffsets, dtype, packedRows(d, dtype, operands));
}

}  // namespace

void CudaBackend::cast(const CastParams& p) {
  checkSize(p.x, p.size, "cast", "x");
  checkSize(p.y, p.size, "cast", "y");
  const bool halves = p.x.dtype == DType::bfloat16 || p.y.dtype == DType::bfloat16;
  launchElements(launcher_, typed(typed("cast", p.x.dtype).c_str(), p.y.dtype),
                 halves ? DType::bfloat16 : DType::float32,
                 {p.x.data, nullptr, p.y.data, p.size, 0, 0, Activation::none});
}

void CudaBackend::add(const AddParams& p) {
  checkSize(p.a, p.size, "add", "a");
  checkOptionalSize(p.b, p.size, "add", "b");
  checkSize(p.y, p.size, "add", "y");
  const DType dtype = realType("add", {p.a, p.b, p.y});
  launchElements(launcher_, typed("add", dtype), dtype,
                 {p.a.data, p.b.data, p.y.data, p.size, p.alpha, p.beta, Activation::none});
}

void CudaBackend::multiply(const MultiplyParams& p) {
  checkSize(p.a, p.size, "multiply", "a");
  checkSize(p.b, p.size, "multiply", "b");
  checkSize(p.y, p.size, "multiply", "y");
  const DType dtype = realType("multiply", {p.a, p.b, p.y});
  launchElements(launcher_, typed("multiply", dtype), dtype,
                 {p.a.data, p.b.data, p.y.data, p.size, 0, 0, Activation::none});
}

void CudaBackend::clamp(const ClampParams& p) {
  checkThat(p.low <= p.high, "clamp", "low <= high");
  checkSize(p.x, p.size, "clamp", "x");
  checkSize(p.y, p.size, "clamp", "y");
  const DType dtype = realType("clamp", {p.x, p.y});
  launchElements(launcher_, typed("clamp", dtype), dtype,
                 {p.x.data, nullptr, p.y.data, p.size, p.low, p.high, Activation::none});
}

void CudaBackend::clampBackward(const ClampBackwardParams& p) {
  checkSize(p.dy, p.size, "clampBackward", "dy");
  checkSize(p.x, p.size, "clampBackward", "x");
  checkSize(p.dx, p.size, "clampBackward", "dx");
  const DType dtype = realType("clampBackward", {p.dy, p.x, p.dx});
  launchElements(launcher_, typed("clampBackward", dtype), dtype,
                 {p.dy.data, p.x.data, p.dx.data, p.size, p.low, p.high, Activation::none});
}

void CudaBackend::activation(const ActivationParams& p) {
  checkActivation(p.activation, "activation");
  checkSize(p.x, p.size, "activation", "x");
  checkSize(p.y, p.size, "activation", "y");
  const DType dtype = realType("activation", {p.x, p.y});
  launchElements(launcher_, typed("activation", dtype), dtype,
                 {p.x.data, nullptr, p.y.data, p.size, 0, 0, p.activation});
}

void CudaBackend::activationBackward(const ActivationBackwardParams& p) {
  checkActivation(p.activation, "activationBackward");
  checkSize(p.dy, p.rows * p.d, "activationBackward", "dy");
  checkSize(p.x, p.rows * p.d, "activationBackward", "x");
  checkOptionalSize(p.rowScale, p.rows, "activationBackward", "rowScale");
  checkSize(p.dx, p.rows * p.d, "activationBackward", "dx");
  const DType dtype = realType("activationBackward", {p.dy, p.x, p.dx});
  const RowWalk walk = walkOf(p.rows, p.d, p.countOffsets, dtype, {p.dy.data, p.x.data, p.dx.data});
  launcher_.launch(typed("activationBackward", dtype), gridOf(walk), kRowThreads,
                   ActivationRowsKernelParams{walk, p.dy.data, p.x.data, nullptr, p.rowScale.data, p.dx.data, nullptr,
                                              p.activation});
}

void CudaBackend::gatedActivation(const GatedActivationParams& p) {
  checkActivation(p.activation, "gatedActivation");
  checkSize(p.gate, p.rows * p.d, "gatedActivation", "gate");
  checkSize(p.up, p.rows * p.d, "gatedActivation", "up");
  checkSize(p.y, p.rows * p.d, "gatedActivation", "y");
  const DType dtype = realType("gatedActivation", {p.gate, p.up, p.y});
  const RowWalk walk = walkOf(p.rows, p.d, p.countOffsets, dtype, {p.gate.data, p.up.data, p.y.data});
  launcher_.launch(
      typed("gatedActivation", dtype), gridOf(walk), kRowThreads,
      ActivationRowsKernelParams{walk, nullptr, p.gate.data, p.up.data, nullptr, p.y.data, nullptr, p.activation});
}

void CudaBackend::gatedActivationBackward(const GatedActivationBackwardParams& p) {
  checkActivation(p.activation, "gatedActivationBackward");
  checkSize(p.dy, p.rows * p.d, "gatedActivationBackward", "dy");
  checkSize(p.gate, p.rows * p.d, "gatedActivationBackward", "gate");
  checkSize(p.up, p.rows * p.d, "gatedActivationBackward", "up");
  checkOptionalSize(p.rowScale, p.rows, "gatedActivationBackward", "rowScale");
  checkSize(p.dGate, p.rows * p.d, "gatedActivationBackward", "dGate");
  checkSize(p.dUp, p.rows * p.d, "gatedActivationBackward", "dUp");
  const DType dtype = realType("gatedActivationBackward", {p.dy, p.gate, p.up, p.dGate, p.dUp});
  const RowWalk walk =
      walkOf(p.rows, p.d, p.countOffsets, dtype, {p.dy.data, p.gate.data, p.up.data, p.dGate.data, p.dUp.data});
  launcher_.launch(typed("gatedActivationBackward", dtype), gridOf(walk), kRowThreads,
                   ActivationRowsKernelParams{walk, p.dy.data, p.gate.data, p.up.data, p.rowScale.data, p.dGate.data,
                                              p.dUp.data, p.activation});
}

void CudaBackend::rowDot(const RowDotParams& p) {
  checkSize(p.a, p.rows * p.d, "rowDot", "a");
  checkOptionalSize(p.bRows, p.rows, "rowDot", "bRows");
  checkSize(p.y, p.rows, "rowDot", "y");
  if (p.bRows.data == nullptr) {
    checkSize(p.b, p.rows * p.d, "rowDot", "b");
  } else {
    checkColumns(p.b, p.d, "rowDot", "b");
  }
  const DType dtype = realType("rowDot", {p.a, p.b});
  const int64_t bRowCount = p.bRows.data == nullptr ? p.rows : p.b.size / p.d;
  const RowWalk walk = walkOf(p.rows, p.d, p.countOffsets, dtype, {p.a.data, p.b.data});
  launcher_.launch(
      typed("rowDot", dtype), {blocksFor(p.rows, kRowDotThreads / 32)}, kRowDotThreads,
      RowDotKernelParams{p.a.data, p.b.data, p.bRows.data, walk.count, p.y.data,
                         indexReport(launcher_, "rowDot", "bRows", 0, bRowCount), p.rows, p.d, bRowCount, walk.packed});
}

}  // namespace dp_moe
