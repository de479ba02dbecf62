#include <algorithm>
#include <string>

#include "checks.h"
#include "cpu_backend.h"
#include "ranges.h"

namespace dp_moe {

namespace {

constexpr int64_t kElementsPerTask = 16384;  // a multiple of every vector width

void checkActivation(Activation kind, const char* op) {
  checkThat(kind >= Activation::none && kind <= Activation::tanh, op,
            "an activation from none (0) to tanh (5), got " + std::to_string(static_cast<int32_t>(kind)));
}

}  // namespace

void CpuBackend::cast(const CastParams& p) {
  checkSize(p.x, p.size, "cast", "x");
  checkSize(p.y, p.size, "cast", "y");
  parallelRanges(threads_, p.size, kElementsPerTask,
                 [&](int64_t begin, int64_t end) { std::copy(p.x.data + begin, p.x.data + end, p.y.data + begin); });
}

void CpuBackend::add(const AddParams& p) {
  checkSize(p.a, p.size, "add", "a");
  checkOptionalSize(p.b, p.size, "add", "b");
  checkSize(p.y, p.size, "add", "y");
  parallelRanges(threads_, p.size, kElementsPerTask,
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.add(p, begin, end); });
}

void CpuBackend::multiply(const MultiplyParams& p) {
  checkSize(p.a, p.size, "multiply", "a");
  checkSize(p.b, p.size, "multiply", "b");
  checkSize(p.y, p.size, "multiply", "y");
  parallelRanges(threads_, p.size, kElementsPerTask,
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.multiply(p, begin, end); });
}

void CpuBackend::clamp(const ClampParams& p) {
  checkThat(p.low <= p.high, "clamp", "low <= high");
  checkSize(p.x, p.size, "clamp", "x");
  checkSize(p.y, p.size, "clamp", "y");
  parallelRanges(threads_, p.size, kElementsPerTask,
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.clamp(p, begin, end); });
}

void CpuBackend::clampBackward(const ClampBackwardParams& p) {
  checkSize(p.dy, p.size, "clampBackward", "dy");
  checkSize(p.x, p.size, "clampBackward", "x");
  checkSize(p.dx, p.size, "clampBackward", "dx");
  parallelRanges(threads_, p.size, kElementsPerTask,
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.clampBackward(p, begin, end); });
}

void CpuBackend::activation(const ActivationParams& p) {
  checkActivation(p.activation, "activation");
  checkSize(p.x, p.size, "activation", "x");
  checkSize(p.y, p.size, "activation", "y");
  parallelRanges(threads_, p.size, kElementsPerTask,
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.activation(p, begin, end); });
}

void CpuBackend::activationBackward(const ActivationBackwardParams& p) {
  checkActivation(p.activation, "activationBackward");
  checkSize(p.dy, p.rows * p.d, "activationBackward", "dy");
  checkSize(p.x, p.rows * p.d, "activationBackward", "x");
  checkOptionalSize(p.rowScale, p.rows, "activationBackward", "rowScale");
  checkSize(p.dx, p.rows * p.d, "activationBackward", "dx");
  parallelRanges(threads_, countedRows(p.countOffsets, p.rows), rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.activationBackward(p, begin, end); });
}

void CpuBackend::gatedActivation(const GatedActivationParams& p) {
  checkActivation(p.activation, "gatedActivation");
  checkSize(p.gate, p.rows * p.d, "gatedActivation", "gate");
  checkSize(p.up, p.rows * p.d, "gatedActivation", "up");
  checkSize(p.y, p.rows * p.d, "gatedActivation", "y");
  parallelRanges(threads_, countedRows(p.countOffsets, p.rows), rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.gatedActivation(p, begin, end); });
}

void CpuBackend::gatedActivationBackward(const GatedActivationBackwardParams& p) {
  checkActivation(p.activation, "gatedActivationBackward");
  checkSize(p.dy, p.rows * p.d, "gatedActivationBackward", "dy");
  checkSize(p.gate, p.rows * p.d, "gatedActivationBackward", "gate");
  checkSize(p.up, p.rows * p.d, "gatedActivationBackward", "up");
  checkOptionalSize(p.rowScale, p.rows, "gatedActivationBackward", "rowScale");
  checkSize(p.dGate, p.rows * p.d, "gatedActivationBackward", "dGate");
  checkSize(p.dUp, p.rows * p.d, "gatedActivationBackward", "dUp");
  parallelRanges(threads_, countedRows(p.countOffsets, p.rows), rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.gatedActivationBackward(p, begin, end); });
}

void CpuBackend::rowDot(const RowDotParams& p) {
  checkSize(p.a, p.rows * p.d, "rowDot", "a");
  checkOptionalSize(p.bRows, p.rows, "rowDot", "bRows");
  checkSize(p.y, p.rows, "rowDot", "y");
  const int64_t count = countedRows(p.countOffsets, p.rows);
  if (p.bRows.data == nullptr) {
    checkSize(p.b, p.rows * p.d, "rowDot", "b");
  } else {
    checkColumns(p.b, p.d, "rowDot", "b");
    checkIndices(p.bRows, count, 0, p.b.size / p.d, "rowDot", "bRows");
  }
  parallelRanges(threads_, count, rowsPerTask(p.d),
                 [&](int64_t begin, int64_t end) { kernels_.elementwise.rowDot(p, begin, end); });
}

}  // namespace dp_moe
