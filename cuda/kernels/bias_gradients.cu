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

/// The rows of group g: those of its segments together.
DEVICE UnitRows rowsOfGroup(const BiasGradientKernelParams& p, int64_t group) {
  const int64_t first = p.offsets[group * p.units], last = p.offsets[(group + 1) * p.units];
  if (first >= 0 && first <= last && last <= p.rows) return {first, last};
  report(p.wrongOffsets, last);
  return {0, 0};
}

/// The factor of a row's unit: the last of the group's segments that starts at or before it.
DEVICE float factorOfRow(const BiasGradientKernelParams& p, int64_t group, int64_t row) {
  if (p.factor == nullptr) return 1;
  int64_t low = 0, high = p.units;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (p.offsets[group * p.units + middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return p.factor[low];
}

/// A chunk's rows go round the warps; each warp adds its own in order, then chunk after chunk, then the warps' sums are
/// added in order.
template <class T>
DEVICE void biasGradientBody(const BiasGradientKernelParams& p, float* factors, float* sums) {
  constexpr int kWarps = kBiasThreads / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t group = blockIdx.x / p.columnBlocks, column = (blockIdx.x % p.columnBlocks * kWarp + lane) * 4;
  const UnitRows rows = rowsOfGroup(p, group);
  const T* dy = static_cast<const T*>(p.dy);
  Pack<float, 4> total = {};
  for (int64_t chunk = rows.first + static_cast<int64_t>(blockIdx.y) * kBiasChunk; chunk < rows.last;
       chunk += kBiasParts * kBiasChunk) {
    const int64_t count = rows.last - chunk < kBiasChunk ? rows.last - chunk : kBiasChunk;
    __syncthreads();  // all are done with the factors before
    for (int64_t i = threadIdx.x; i < count; i += kBiasThreads) factors[i] = factorOfRow(p, group, chunk + i);
    __syncthreads();
    Pack<float, 4> sum = {};
    for (int64_t i = warp; i < count; i += kWarps) {
      const float factor = factors[i];
      if (factor == 0 || column >= p.p) continue;
      const Pack<float, 4> value = loadColumns<T, 4>(dy + (chunk + i) * p.p, column, p.p, p.packed);
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
  SHARED(float, factors, kBiasChunk);
  SHARED(float, sums, kBiasThreads * 4);
  biasGradientBody<float>(p, factors, sums);
}
KERNEL(biasGradient_bfloat16, BiasGradientKernelParams) {
  SHARED(float, factors, kBiasChunk);
  SHARED(float, sums, kBiasThreads * 4);
  biasGradientBody<bfloat16>(p, factors, sums);
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
