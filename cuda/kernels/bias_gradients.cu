#include "bias_gradients.h"
#include "columns.h"
#include "reductions.h"
#include "unit_rows.h"

namespace dp_moe::bias {

/// The sums of the columns run over the segment's rows in order, in double: a sum that cancels keeps its digits.
template <class T>
DEVICE void segmentBiasNormsBody(const SegmentBiasNormsKernelParams& p, double* parts) {
  const UnitRows rows = unitRows(p.offsets, blockIdx.x, p.rows, p.wrongOffsets);
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kBiasColumns + threadIdx.x * 4;
  double squares = 0;
  if (column < p.p && rows.first < rows.last) {
    double sum[4] = {};
    const T* dy = static_cast<const T*>(p.dy);
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const Pack<float, 4> value = loadColumns<T, 4>(dy + row * p.p, column, p.p, p.packed);
      UNROLL
      for (int i = 0; i < 4; ++i) sum[i] += static_cast<double>(value.value[i]);
    }
    UNROLL
    for (int i = 0; i < 4; ++i) squares += sum[i] * sum[i];
  }
  squares = blockSum(squares, parts);
  if (threadIdx.x == 0) p.values[static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y] = squares;
}
KERNEL(segmentBiasNorms_float32, SegmentBiasNormsKernelParams) {
  SHARED(double, parts, kBiasThreads / kWarp);
  segmentBiasNormsBody<float>(p, parts);
}
KERNEL(segmentBiasNorms_bfloat16, SegmentBiasNormsKernelParams) {
  SHARED(double, parts, kBiasThreads / kWarp);
  segmentBiasNormsBody<bfloat16>(p, parts);
}

/// A chunk's rows go round the warps; each warp adds its own in order, then chunk after chunk, then the warps' sums are
/// added in order.
template <class T>
DEVICE void biasGradientBody(const BiasGradientKernelParams& p, float* sums) {
  constexpr int kWarps = kBiasThreads / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t group = blockIdx.x / p.columnBlocks, column = (blockIdx.x % p.columnBlocks * kWarp + lane) * 4;
  const int64_t start = p.groupRows[2 * group], length = p.groupRows[2 * group + 1];
  const T* dy = static_cast<const T*>(p.dy);
  Pack<float, 4> total = {};
  for (int64_t chunk = static_cast<int64_t>(blockIdx.y) * kBiasChunk; chunk < length && column < p.p;
       chunk += kBiasParts * kBiasChunk) {
    const int64_t end = chunk + kBiasChunk < length ? chunk + kBiasChunk : length;
    Pack<float, 4> sum = {};
    for (int64_t i = chunk + warp; i < end; i += kWarps) {
      const float factor = p.scale[start + i];
      const Pack<float, 4> value = loadColumns<T, 4>(dy + p.dyRow[start + i] * p.p, column, p.p, p.packed);
      UNROLL
      for (int n = 0; n < 4; ++n) sum.value[n] = fmaf(factor, value.value[n], sum.value[n]);
    }
    UNROLL
    for (int n = 0; n < 4; ++n) total.value[n] += sum.value[n];
  }
  UNROLL
  for (int n = 0; n < 4; ++n) sums[(warp * 4 + n) * kWarp + lane] = total.value[n];
  __syncthreads();
  if (warp > 0) return;
  UNROLL
  for (int n = 0; n < 4; ++n) {
    for (int w = 1; w < kWarps; ++w) total.value[n] += sums[(w * 4 + n) * kWarp + lane];
    if (column + n < p.p) p.parts[(group * kBiasParts + blockIdx.y) * p.p + column + n] = total.value[n];
  }
}
KERNEL(biasGradient_float32, BiasGradientKernelParams) {
  SHARED(float, sums, kBiasThreads * 4);
  biasGradientBody<float>(p, sums);
}
KERNEL(biasGradient_bfloat16, BiasGradientKernelParams) {
  SHARED(float, sums, kBiasThreads * 4);
  biasGradientBody<bfloat16>(p, sums);
}

/// A thread per element of the gradient.
KERNEL(addBiasParts, BiasGradientKernelParams) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBiasThreads + threadIdx.x;
  if (i >= p.groups * p.p) return;
  const int64_t group = i / p.p;
  float gradient = p.gradient[i];
  for (int64_t part = 0; part < kBiasParts; ++part) gradient += p.parts[(group * kBiasParts + part) * p.p + i % p.p];
  p.gradient[i] = gradient;
}

}  // namespace dp_moe::bias
