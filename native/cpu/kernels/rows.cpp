#include "kernels/lanes.h"
#include "kernels/row_kernels.h"

namespace dp_moe::DP_MOE_ISA {

namespace {

DP_MOE_INLINE void copyRow(float* y, const float* x, int64_t d) {
  forVectors(d, [&]<bool full>(int64_t c, int64_t n) { write<full>(y + c, read<full>(x + c, n), n); });
}
DP_MOE_INLINE void scaleRow(float* y, const float* x, float scale, int64_t d) {
  forVectors(d, [&]<bool full>(int64_t c, int64_t n) { write<full>(y + c, read<full>(x + c, n) * scale, n); });
}

void embedding(const EmbeddingParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    scaleRow(p.y.data + r * p.d, p.table.data + p.ids.data[r] * p.d, p.scale, p.d);
  }
}

// Rows are summed in chunks of kChunk counted from the unit's first row: a long unit's sum keeps its digits.
constexpr int64_t kChunk = 64;

void pool(const PoolParams& p, int64_t begin, int64_t end) {
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = p.segmentOffsets.data[u];
    const int64_t last = p.segmentOffsets.data[u + 1];
    const float mean = first < last ? 1.0f / static_cast<float>(last - first) : 0.0f;
    forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
      vf sum = {};
      for (int64_t chunk = first; chunk < last; chunk += kChunk) {
        vf part = {};
        for (int64_t r = chunk; r < smaller(chunk + kChunk, last); ++r) {
          const float weight = p.weights.data != nullptr ? p.weights.data[r] : mean;
          part = fma(broadcast(weight), read<full>(p.x.data + r * p.d + c, n), part);
        }
        sum += part;
      }
      write<full>(p.y.data + u * p.d + c, sum, n);
    });
  }
}

void poolBackward(const PoolBackwardParams& p, int64_t begin, int64_t end) {
  for (int64_t u = begin; u < end; ++u) {
    const int64_t first = p.segmentOffsets.data[u];
    const int64_t last = p.segmentOffsets.data[u + 1];
    const float mean = first < last ? 1.0f / static_cast<float>(last - first) : 0.0f;
    for (int64_t r = first; r < last; ++r) {
      const float weight = p.weights.data != nullptr ? p.weights.data[r] : mean;
      scaleRow(p.dx.data + r * p.d, p.dy.data + u * p.d, weight, p.d);
    }
  }
}

void gatherRows(const GatherRowsParams& p, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = p.x.data + p.index.data[i] * p.d;
    if (p.scale.data != nullptr) {
      scaleRow(p.y.data + i * p.d, x, p.scale.data[i], p.d);
    } else {
      copyRow(p.y.data + i * p.d, x, p.d);
    }
  }
}

void combineRows(const CombineRowsParams& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int32_t* slot = p.slot.data + r * p.perRow;
    float* y = p.y.data + r * p.d;
    forVectors(p.d, [&]<bool full>(int64_t c, int64_t n) {
      vf sum = p.accumulate ? read<full>(y + c, n) : vf{};
      for (int64_t j = 0; j < p.perRow; ++j) {
        if (slot[j] < 0) continue;
        const vf x = read<full>(p.x.data + slot[j] * p.d + c, n);
        sum = p.weight.data != nullptr ? fma(broadcast(p.weight.data[r * p.perRow + j]), x, sum) : sum + x;
      }
      write<full>(y + c, sum, n);
    });
  }
}

}  // namespace

extern const RowKernels rowKernels;
const RowKernels rowKernels = {
    .embedding = embedding,
    .pool = pool,
    .poolBackward = poolBackward,
    .gatherRows = gatherRows,
    .combineRows = combineRows,
};

}  // namespace dp_moe::DP_MOE_ISA
