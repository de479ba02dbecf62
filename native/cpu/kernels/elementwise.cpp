#include "kernels/activations.h"
#include "kernels/elementwise_kernels.h"
#include "kernels/lanes.h"

namespace dp_moe::DP_MOE_ISA {

namespace {

void add(const AddParams& p, int64_t begin, int64_t end) {
  const float* a = p.a.data + begin;
  float* y = p.y.data + begin;
  if (p.b.data == nullptr) {
    forVectors(end - begin,
               [&]<bool full>(int64_t i, int64_t n) { write<full>(y + i, read<full>(a + i, n) * p.alpha, n); });
    return;
  }
  const float* b = p.b.data + begin;
  forVectors(end - begin, [&]<bool full>(int64_t i, int64_t n) {
    write<full>(y + i, fma(read<full>(b + i, n), broadcast(p.beta), read<full>(a + i, n) * p.alpha), n);
  });
}

void multiply(const MultiplyParams& p, int64_t begin, int64_t end) {
  const float* a = p.a.data + begin;
  const float* b = p.b.data + begin;
  float* y = p.y.data + begin;
  forVectors(end - begin, [&]<bool full>(int64_t i, int64_t n) {
    write<full>(y + i, read<full>(a + i, n) * read<full>(b + i, n), n);
  });
}

void clamp(const ClampParams& p, int64_t begin, int64_t end) {
  forVectors(end - begin, [&]<bool full>(int64_t i, int64_t n) {
    // The bound comes first: min and max return their second operand where one is NaN.
    const vf raised = max(broadcast(p.low), read<full>(p.x.data + begin + i, n));
    write<full>(p.y.data + begin + i, min(broadcast(p.high), raised), n);
  });
}

void clampBackward(const ClampBackwardParams& p, int64_t begin, int64_t end) {
  forVectors(end - begin, [&]<bool full>(int64_t i, int64_t n) {
    const vf x = read<full>(p.x.data + begin + i, n);
    const vi outside = (x < p.low) | (x > p.high);
    const vf dx = select(outside, vf{}, read<full>(p.dy.data + begin + i, n));
    write<full>(p.dx.data + begin + i, select(isNan(x), x, dx), n);
  });
}

void activation(const ActivationParams& p, int64_t begin, int64_t end) {
  withActivation(p.activation, [&]<Activation kind>() {
    forVectors(end - begin, [&]<bool full>(int64_t i, int64_t n) {
      write<full>(p.y.data + begin + i, activate<kind>(read<full>(p.x.data + begin + i, n)), n);
    });
  });
}

void activationBackward(const ActivationBackwardParams& p, int64_t begin, int64_t end) {
  withActivation(p.activation, [&]<Activation kind>() {
    for (int64_t r = begin; r < end; ++r) {
      const float scale = p.rowScale.data != nullptr ? p.rowScale.data[r] : 1.0f;
      const int64_t row = r * p.d;
      forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
        const vf slope = differentiate<kind>(read<full>(p.x.data + row + c, n)).slope;
        write<full>(p.dx.data + row + c, read<full>(p.dy.data + row + c, n) * scale * slope, n);
      });
    }
  });
}

void gatedActivation(const GatedActivationParams& p, int64_t begin, int64_t end) {
  withActivation(p.activation, [&]<Activation kind>() {
    const int64_t first = begin * p.d;
    forVectors((end - begin) * p.d, [&]<bool full>(int64_t i, int64_t n) {
      const vf gate = activate<kind>(read<full>(p.gate.data + first + i, n));
      write<full>(p.y.data + first + i, gate * read<full>(p.up.data + first + i, n), n);
    });
  });
}

void gatedActivationBackward(const GatedActivationBackwardParams& p, int64_t begin, int64_t end) {
  withActivation(p.activation, [&]<Activation kind>() {
    for (int64_t r = begin; r < end; ++r) {
      const float scale = p.rowScale.data != nullptr ? p.rowScale.data[r] : 1.0f;
      const int64_t row = r * p.d;
      forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
        const Differential gate = differentiate<kind>(read<full>(p.gate.data + row + c, n));
        const vf dy = read<full>(p.dy.data + row + c, n) * scale;
        const vf up = read<full>(p.up.data + row + c, n);
        write<full>(p.dGate.data + row + c, dy * up * gate.slope, n);
        write<full>(p.dUp.data + row + c, dy * gate.value, n);
      });
    }
  });
}

void rowDot(const RowDotParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* a = p.a.data + r * p.d;
    const float* b = p.b.data + (p.bRows.data != nullptr ? p.bRows.data[r] : r) * p.d;
    vf sum = {};
    forVectors(p.d,
               [&]<bool full>(int64_t c, int64_t n) { sum = fma(read<full>(a + c, n), read<full>(b + c, n), sum); });
    p.y.data[r] = reduceAdd(sum);
  }
}

void rotateRow(const RotaryEmbeddingParams& p, int64_t row, const float* cosine, const float* sine) {
  const int64_t half = p.headSize / 2;
  const float sign = p.inverse ? -1.0f : 1.0f;
  for (int64_t head = 0; head < p.heads; ++head) {
    const int64_t at = (row * p.heads + head) * p.headSize;
    forVectors(half, [&]<bool full>(int64_t c, int64_t n) {
      const vf lower = read<full>(p.x.data + at + c, n);
      const vf upper = read<full>(p.x.data + at + half + c, n);
      const vf cos = read<full>(cosine + c, n);
      const vf sin = read<full>(sine + c, n) * sign;
      write<full>(p.y.data + at + c, fnma(upper, sin, lower * cos), n);
      write<full>(p.y.data + at + half + c, fma(lower, sin, upper * cos), n);
    });
  }
}

}  // namespace

extern const ElementwiseKernels elementwiseKernels;
const ElementwiseKernels elementwiseKernels = {
    .add = add,
    .multiply = multiply,
    .clamp = clamp,
    .clampBackward = clampBackward,
    .activation = activation,
    .activationBackward = activationBackward,
    .gatedActivation = gatedActivation,
    .gatedActivationBackward = gatedActivationBackward,
    .rowDot = rowDot,
    .rotateRow = rotateRow,
};

}  // namespace dp_moe::DP_MOE_ISA
