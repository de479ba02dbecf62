#include "real.h"
#include "row_places.h"
#include "rows.h"
#include "unit_rows.h"

namespace dp_moe {

namespace {

template <class T, int n>
DEVICE void scaleRow(T* y, const T* x, float scale, const RowPlace& at, int64_t d) {
  for (int64_t c = at.first; c < d; c += at.step) {
    Pack<float, n> values = loadFloats<T, n>(x + c);
    for (int i = 0; i < n; ++i) values.value[i] *= scale;
    storeFloats<T, n>(y + c, values);
  }
}

template <class T, int n>
DEVICE void embedRows(const EmbeddingKernelParams& p) {
  const RowPlace at = rowPlace<n>(p.walk);
  if (!rowExists(p.walk, at.row)) return;
  const int32_t id = p.ids[at.row];
  if (id < 0 || id >= p.vocabulary) {
    report(p.wrongId, id);
    return;
  }
  const float* row = p.table + id * p.walk.d;
  T* y = static_cast<T*>(p.y) + at.row * p.walk.d;
  for (int64_t c = at.first; c < p.walk.d; c += at.step) {
    Pack<float, n> values = loadPack<float, n>(row + c);
    for (int i = 0; i < n; ++i) values.value[i] *= p.scale;
    storeFloats<T, n>(y + c, values);
  }
}

template <class T, int n>
DEVICE void gatherEachRow(const GatherRowsKernelParams& p) {
  const RowPlace at = rowPlace<n>(p.walk);
  if (!rowExists(p.walk, at.row)) return;
  const int32_t index = p.index[at.row];
  if (index < 0 || index >= p.xRows) {
    report(p.wrongIndex, index);
    return;
  }
  const T* x = static_cast<const T*>(p.x) + index * p.walk.d;
  T* y = static_cast<T*>(p.y) + at.row * p.walk.d;
  if (p.scale != nullptr) {
    scaleRow<T, n>(y, x, p.scale[at.row], at, p.walk.d);
  } else {
    for (int64_t c = at.first; c < p.walk.d; c += at.step) storePack<T, n>(y + c, loadPack<T, n>(x + c));
  }
}

template <class T, int n>
DEVICE void combineEachRow(const CombineRowsKernelParams& p) {
  const RowPlace at = rowPlace<n>(p.walk);
  if (!rowExists(p.walk, at.row)) return;
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y) + at.row * p.walk.d;
  for (int64_t c = at.first; c < p.walk.d; c += at.step) {
    Pack<float, n> sum = {};
    if (p.accumulate) sum = loadFloats<T, n>(y + c);
    for (int64_t j = at.row * p.perRow; j < (at.row + 1) * p.perRow; ++j) {
      const int32_t slot = p.slot[j];
      if (slot < 0) continue;
      if (slot >= p.xRows) {
        report(p.wrongSlot, slot);
        continue;
      }
      const float weight = p.weight != nullptr ? p.weight[j] : 1.0f;
      const Pack<float, n> values = loadFloats<T, n>(x + slot * p.walk.d + c);
      for (int i = 0; i < n; ++i) sum.value[i] = fmaf(weight, values.value[i], sum.value[i]);
    }
    storeFloats<T, n>(y + c, sum);
  }
}

/// 1 / rows of a unit, the weight of a mean.
DEVICE float meanWeight(const UnitRows& unit) {
  return unit.first < unit.last ? 1.0f / static_cast<float>(unit.last - unit.first) : 0.0f;
}

template <class T, int n>
DEVICE void poolUnit(const PoolKernelParams& p, float* partial) {
  constexpr int64_t kPart = 64 * kPoolWarps;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int64_t unit = blockIdx.x / p.columnBlocks;
  const int64_t c = (static_cast<int64_t>(blockIdx.x % p.columnBlocks) * 32 + lane) * n;
  const UnitRows rows = unitRows(p.segmentOffsets, unit, p.rows, p.wrongOffsets);
  const float mean = meanWeight(rows);
  const T* x = static_cast<const T*>(p.x) + c;
  Pack<float, n> sum = {};
  if (c < p.d) {
    for (int64_t begin = rows.first; begin < rows.last; begin += kPart) {
      const int64_t end = begin + kPart < rows.last ? begin + kPart : rows.last;
      Pack<float, n> part = {};
      for (int64_t r = begin + warp; r < end; r += kPoolWarps) {
        const float weight = p.weights != nullptr ? p.weights[r] : mean;
        const Pack<float, n> values = loadFloats<T, n>(x + r * p.d);
        for (int i = 0; i < n; ++i) part.value[i] = fmaf(weight, values.value[i], part.value[i]);
      }
      for (int i = 0; i < n; ++i) sum.value[i] += part.value[i];
    }
  }
  for (int i = 0; i < n; ++i) partial[(warp * n + i) * 32 + lane] = sum.value[i];
  __syncthreads();
  if (warp > 0 || c >= p.d) return;
  for (int w = 1; w < kPoolWarps; ++w) {
    for (int i = 0; i < n; ++i) sum.value[i] += partial[(w * n + i) * 32 + lane];
  }
  storeFloats<T, n>(static_cast<T*>(p.y) + unit * p.d + c, sum);
}

template <class T, int n>
DEVICE void spreadUnit(const PoolBackwardKernelParams& p) {
  const UnitRows rows = unitRows(p.walk.offsets, blockIdx.x, p.walk.rows, p.walk.wrongOffsets);
  const float mean = meanWeight(rows);
  const int64_t d = p.walk.d;
  const T* dy = static_cast<const T*>(p.dy) + blockIdx.x * d;
  forRowsOfUnit<n>(p.walk, rows.last - rows.first, [&](int64_t row, int64_t first, int64_t step) {
    const int64_t r = rows.first + row;
    const float weight = p.weights != nullptr ? p.weights[r] : mean;
    scaleRow<T, n>(static_cast<T*>(p.dx) + r * d, dy, weight, {r, first, step}, d);
  });
}

template <class T, int n>
DEVICE void concatenateUnit(const ConcatenateKernelParams& p) {
  const UnitRows a = unitRows(p.walk.offsets, blockIdx.x, p.walk.rows, p.walk.wrongOffsets);
  const UnitRows b = unitRows(p.bOffsets, blockIdx.x, p.bRows, p.wrongBOffsets);
  const int64_t d = p.walk.d;
  const int64_t aCount = a.last - a.first;
  T* yStart = static_cast<T*>(p.y) + (a.first + b.first) * d;
  forRowsOfUnit<n>(p.walk, aCount + b.last - b.first, [&](int64_t row, int64_t first, int64_t step) {
    const T* from = row < aCount ? static_cast<const T*>(p.a) + (a.first + row) * d
                                 : static_cast<const T*>(p.b) + (b.first + row - aCount) * d;
    for (int64_t c = first; c < d; c += step) storePack<T, n>(yStart + row * d + c, loadPack<T, n>(from + c));
  });
}

}  // namespace

template <class T>
DEVICE void embeddingBody(const EmbeddingKernelParams& p) {
  p.walk.packed ? embedRows<T, kPack<T>>(p) : embedRows<T, 1>(p);
}
KERNEL(embedding_float32, EmbeddingKernelParams) { embeddingBody<float>(p); }
KERNEL(embedding_bfloat16, EmbeddingKernelParams) { embeddingBody<bfloat16>(p); }

template <class T>
DEVICE void gatherRowsBody(const GatherRowsKernelParams& p) {
  p.walk.packed ? gatherEachRow<T, kPack<T>>(p) : gatherEachRow<T, 1>(p);
}
KERNEL(gatherRows_float32, GatherRowsKernelParams) { gatherRowsBody<float>(p); }
KERNEL(gatherRows_bfloat16, GatherRowsKernelParams) { gatherRowsBody<bfloat16>(p); }

template <class T>
DEVICE void combineRowsBody(const CombineRowsKernelParams& p) {
  p.walk.packed ? combineEachRow<T, kPack<T>>(p) : combineEachRow<T, 1>(p);
}
KERNEL(combineRows_float32, CombineRowsKernelParams) { combineRowsBody<float>(p); }
KERNEL(combineRows_bfloat16, CombineRowsKernelParams) { combineRowsBody<bfloat16>(p); }

template <class T>
DEVICE void poolBody(const PoolKernelParams& p, float* partial) {
  p.packed ? poolUnit<T, kPack<T>>(p, partial) : poolUnit<T, 1>(p, partial);
}
KERNEL(pool_float32, PoolKernelParams) {
  SHARED(float, partial, kPoolWarps * 32 * kPack<float>);
  poolBody<float>(p, partial);
}
KERNEL(pool_bfloat16, PoolKernelParams) {
  SHARED(float, partial, kPoolWarps * 32 * kPack<bfloat16>);
  poolBody<bfloat16>(p, partial);
}

template <class T>
DEVICE void poolBackwardBody(const PoolBackwardKernelParams& p) {
  p.walk.packed ? spreadUnit<T, kPack<T>>(p) : spreadUnit<T, 1>(p);
}
KERNEL(poolBackward_float32, PoolBackwardKernelParams) { poolBackwardBody<float>(p); }
KERNEL(poolBackward_bfloat16, PoolBackwardKernelParams) { poolBackwardBody<bfloat16>(p); }

template <class T>
DEVICE void concatenateBody(const ConcatenateKernelParams& p) {
  p.walk.packed ? concatenateUnit<T, kPack<T>>(p) : concatenateUnit<T, 1>(p);
}
KERNEL(concatenate_float32, ConcatenateKernelParams) { concatenateBody<float>(p); }
KERNEL(concatenate_bfloat16, ConcatenateKernelParams) { concatenateBody<bfloat16>(p); }
KERNEL(concatenate_int32, ConcatenateKernelParams) { concatenateBody<int32_t>(p); }

}  // namespace dp_moe
