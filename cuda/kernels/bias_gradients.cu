#include "bias_gradients.h"
#include "columns.h"
#include "reductions.h"
#include "unit_rows.h"

namespace dp_moe::bias {

/// The sum of a segment's rows in four columns, in order and in double. The norm is that of the very numbers that are
/// added: whatever cancels, they are the same.
template <class T>
DEVICE void sumRows(const void* dy, const UnitRows& rows, int64_t column, int64_t columns, bool packed,
                    double (&sum)[4]) {
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const auto value = loadColumns<T, 4>(static_cast<const T*>(dy) + row * columns, column, columns, packed);
    UNROLL
    for (int i = 0; i < 4; ++i) sum[i] += static_cast<double>(value.value[i]);
  }
}

template <class T>
DEVICE void segmentBiasNormsBody(const SegmentBiasNormsKernelParams& p, double* parts) {
  const UnitRows rows = unitRows(p.offsets, blockIdx.x, p.rows, p.wrongOffsets);
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kBiasColumns + threadIdx.x * 4;
  double squares = 0;
  if (column < p.p && rows.first < rows.last) {
    double sum[4] = {};
    sumRows<T>(p.dy, rows, column, p.p, p.packed, sum);
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

/// The first unit of the group with `row` or more rows that count before it, or `units`.
DEVICE int64_t firstUnit(const BiasGradientKernelParams& p, int64_t group, int64_t row) {
  int64_t low = 0, high = p.units;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (p.keptBefore[group * p.units + middle] < row) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class T>
DEVICE void biasGradientBody(const BiasGradientKernelParams& p, double* sums) {
  constexpr int kWarps = kBiasThreads / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t group = blockIdx.x / p.columnBlocks, column = (blockIdx.x % p.columnBlocks * kWarp + lane) * 4;
  const int64_t length = p.groupRows[2 * group + 1];
  double total[4] = {};
  for (int64_t stretch = (static_cast<int64_t>(blockIdx.y) * kWarps + warp) * kBiasStretch; stretch < length;
       stretch += kBiasParts * kWarps * kBiasStretch) {
    for (int64_t first = firstUnit(p, group, stretch); first < p.units; first += kWarp) {
      const int64_t unit = first + lane, segment = group * p.units + unit;
      const bool inside = unit < p.units && p.keptBefore[segment] < stretch + kBiasStretch;
      const float factor =
          inside && p.offsets[segment] < p.offsets[segment + 1] ? (p.factor != nullptr ? p.factor[unit] : 1.0f) : 0.0f;
      for (uint32_t found = __ballot_sync(kFullMask, factor != 0.0f); found != 0; found &= found - 1) {
        const int other = __ffs(static_cast<int>(found)) - 1;
        const auto scale = static_cast<double>(__shfl_sync(kFullMask, factor, other));
        if (column >= p.p) continue;
        double own[4] = {};
        sumRows<T>(p.dy, unitRows(p.offsets, group * p.units + first + other, p.rows, p.wrongOffsets), column, p.p,
                   p.packed, own);
        UNROLL
        for (int i = 0; i < 4; ++i) total[i] = fma(scale, own[i], total[i]);
      }
      if (__any_sync(kFullMask, !inside)) break;
    }
  }
  UNROLL
  for (int i = 0; i < 4; ++i) sums[(warp * 4 + i) * kWarp + lane] = total[i];
  __syncthreads();
  if (warp > 0) return;
  UNROLL
  for (int i = 0; i < 4; ++i) {
    for (int w = 1; w < kWarps; ++w) total[i] += sums[(w * 4 + i) * kWarp + lane];
    if (column + i < p.p) p.parts[(group * kBiasParts + blockIdx.y) * p.p + column + i] = total[i];
  }
}
KERNEL(biasGradient_float32, BiasGradientKernelParams) {
  SHARED(double, sums, kBiasThreads * 4);
  biasGradientBody<float>(p, sums);
}
KERNEL(biasGradient_bfloat16, BiasGradientKernelParams) {
  SHARED(double, sums, kBiasThreads * 4);
  biasGradientBody<bfloat16>(p, sums);
}

/// A thread per element of the gradient.
KERNEL(addBiasParts, BiasGradientKernelParams) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBiasThreads + threadIdx.x;
  if (i >= p.groups * p.p) return;
  const int64_t group = i / p.p;
  double sum = 0;
  for (int64_t part = 0; part < kBiasParts; ++part) sum += p.parts[(group * kBiasParts + part) * p.p + i % p.p];
  p.gradient[i] = static_cast<float>(static_cast<double>(p.gradient[i]) + sum);
}

}  // namespace dp_moe::bias
