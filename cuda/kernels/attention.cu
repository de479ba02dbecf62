#include "attention.h"
#include "attention_tiles.h"
#include "warp_product.h"

// Softmax attention, forward: a block holds a tile of queries and streams the unit's keys and values past it in tiles,
// two in flight. Scores never leave the registers; each row keeps a running maximum and sum.

namespace dp_moe {

namespace attention {

/// What rows g and g + 8 of a row tile have seen so far.
struct Running {
  float top[2];
  float sum[2];
};

/// Scores of one tile of keys become weights exp(score - top) in place; output and sum move to the new top.
template <int keys, int columns>
DEVICE void softmaxStep(float (&scores)[keys / 8][4], float (&output)[columns / 8][4], Running& running) {
  UNROLL for (int half = 0; half < 2; ++half) {
    float top = -kInfinity;
    UNROLL for (int j = 0; j < keys / 8; ++j) {
      UNROLL for (int n = 0; n < 2; ++n) top = fmaxf(top, scores[j][half * 2 + n]);
    }
    top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 2));
    top = fmaxf(top, running.top[half]);
    // A row that has seen no key yet keeps a top of -infinity: exp(-infinity - 0) is 0.
    const float base = top == -kInfinity ? 0.0f : top;
    const float correction = expf(running.top[half] - base);
    float sum = 0;
    UNROLL for (int j = 0; j < keys / 8; ++j) {
      UNROLL for (int n = 0; n < 2; ++n) {
        float& score = scores[j][half * 2 + n];
        score = expf(score - base);
        sum += score;
      }
    }
    running.top[half] = top;
    running.sum[half] = fmaf(running.sum[half], correction, sum);
    UNROLL for (int j = 0; j < columns / 8; ++j) {
      UNROLL for (int n = 0; n < 2; ++n) output[j][half * 2 + n] *= correction;
    }
  }
}

/// Writes a row tile's output and logSumExp. The sums are joined over the four lanes of a row.
template <class T, int head>
DEVICE void finish(const AttentionKernelParams& p, const float (&output)[head / 8][4], const Running& running, int row,
                   int queryHead, int valid) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  float scale[2];
  UNROLL for (int half = 0; half < 2; ++half) {
    float sum = running.sum[half];
    sum += __shfl_xor_sync(kFullMask, sum, 1);
    sum += __shfl_xor_sync(kFullMask, sum, 2);
    const bool unseen = running.top[half] == -kInfinity && sum == 0;
    scale[half] = unseen ? 0.0f : 1.0f / sum;
    const int at = lane / 4 + half * 8;
    if (lane % 4 == 0 && at < valid) {
      p.logSumExp[(row + at) * p.heads + queryHead] = unseen ? -kInfinity : running.top[half] + logf(sum);
    }
  }
  T* y = static_cast<T*>(p.y) + (row * p.heads + queryHead) * p.headSize;
  storeRows<T, head>(y, p.heads * p.headSize, output, scale, valid, static_cast<int>(p.headSize), p.packed);
}

template <class T, int head>
DEVICE void forward(const AttentionKernelParams& p) {
  using Shape = Forward<T, head>;
  constexpr int kRows = Shape::kRows;
  constexpr int kKeys = Shape::kStreamed;
  constexpr int kTiles = Shape::kRowTiles;
  constexpr int kWarps = Shape::kWarps;
  constexpr int kTileStride = kStride<T, head>;
  DYNAMIC_SHARED(T, queries);
  T* keys = queries + kRows * kTileStride;     // two tiles
  T* values = keys + 2 * kKeys * kTileStride;  // two tiles
  auto* scratch = reinterpret_cast<float*>(values + 2 * kKeys * kTileStride);
  float* windows = scratch + Shape::kScratchFloats;  // two

  checkUnits(p);
  const Tile tile = tileOfSlot(p.offsets, p.units, blockIdx.x, kRows);
  if (tile.unit < 0) return;
  const Extent unit = extentOf(p, tile.unit);
  const auto queryHead = static_cast<int>(blockIdx.y);
  const int keyHead = queryHead / static_cast<int>(p.heads / p.keyValueHeads);
  const int64_t queryStep = p.heads * p.headSize;
  const int64_t keyStep = p.keyValueHeads * p.headSize;
  const auto headSize = static_cast<int>(p.headSize);
  const int rows = min(kRows, unit.queries - tile.first);
  const int firstRow = unit.firstQuery + tile.first;
  // Key positions: of the tile's first query, and the end of what its last query sees.
  const int position = tile.first + unit.shift;
  const int seen = p.causal ? min(unit.keys, position + rows) : unit.keys;

  const auto load = [&](int first, int stage) {
    const int64_t from = static_cast<int64_t>(unit.firstKey + first) * keyStep + keyHead * headSize;
    const int valid = unit.keys - first;
    loadTile<T, kKeys, head, Shape::kThreads>(keys + stage * kKeys * kTileStride, static_cast<const T*>(p.k) + from,
                                              keyStep, valid, headSize, p.packed);
    loadTile<T, kKeys, head, Shape::kThreads>(values + stage * kKeys * kTileStride, static_cast<const T*>(p.v) + from,
                                              keyStep, valid, headSize, p.packed);
    if (p.bias != nullptr) {
      loadBias(windows + stage * Shape::kWindow, p, queryHead, kRows, kKeys, first - position, Shape::kThreads);
    }
    commitAsync();
  };
  if (seen > 0) {
    loadTile<T, kRows, head, Shape::kThreads>(queries,
                                              static_cast<const T*>(p.q) + firstRow * queryStep + queryHead * headSize,
                                              queryStep, rows, headSize, p.packed);
    load(0, 0);
  }

  // Row tile i of warp w has the queries from 16 (w + i kWarps) on: a short unit keeps all warps busy.
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  float output[kTiles][head / 8][4];
  Running running[kTiles];
  UNROLL for (int i = 0; i < kTiles; ++i) {
    clear(output[i]);
    UNROLL for (int half = 0; half < 2; ++half) {
      running[i].top[half] = -kInfinity;
      running[i].sum[half] = 0;
    }
  }
  const auto step = [&]<int tiles>(int first, int stage, bool whole) {
    float scores[tiles][kKeys / 8][4];
    UNROLL for (int i = 0; i < tiles; ++i) clear(scores[i]);
    multiplyRows<tiles, kKeys, head>(scores, queries + warp * 16 * kTileStride, kWarps * 16 * kTileStride,
                                     keys + stage * kKeys * kTileStride, kTileStride);
    UNROLL for (int i = 0; i < tiles; ++i) {
      const int row = (warp + i * kWarps) * 16 + lane / 4;
      scaleScores<kKeys>(scores[i], p.scale);
      if (p.bias != nullptr) addBias<kKeys, 1>(scores[i], windows + stage * Shape::kWindow + kRows - 1 - row);
      if (!whole) hideScores<kKeys>(scores[i], visibleKeys(unit.keys - first, p.causal, position + row - first));
      softmaxStep<kKeys, head>(scores[i], output[i], running[i]);
    }
    multiplyWeights<tiles, head, kKeys>(output, scores, values + stage * kKeys * kTileStride, kTileStride,
                                        scratch + warp * kWeightScratch<T, kKeys>);
  };
  const int tiles = min(kTiles, (rows - warp * 16 + kWarps * 16 - 1) / (kWarps * 16));
  // Every query of the tile sees the keys before this one.
  const int seenByAll = p.causal ? min(unit.keys, position + 1) : unit.keys;
  for (int first = 0, stage = 0; first < seen; first += kKeys, stage ^= 1) {
    waitAsync<0>();
    __syncthreads();  // this stage is there, and nobody reads the other one any more
    if (first + kKeys < seen) load(first + kKeys, stage ^ 1);
    const bool whole = first + kKeys <= seenByAll;
    if (tiles == kTiles) {
      step.template operator()<kTiles>(first, stage, whole);
    } else if (tiles == 1) {
      step.template operator()<1>(first, stage, whole);
    }
  }
  UNROLL for (int i = 0; i < kTiles; ++i) {
    const int first = (warp + i * kWarps) * 16;
    if (first < rows) finish<T, head>(p, output[i], running[i], firstRow + first, queryHead, rows - first);
  }
}

}  // namespace attention

#define DP_MOE_ATTENTION(T, type, head)                                                                        \
  KERNEL_BOUNDS(attention##head##_##type, AttentionKernelParams, (attention::Forward<T, head>::kThreads), 2) { \
    attention::forward<T, head>(p);                                                                            \
  }
DP_MOE_ATTENTION(bfloat16, bfloat16, 32)
DP_MOE_ATTENTION(bfloat16, bfloat16, 64)
DP_MOE_ATTENTION(bfloat16, bfloat16, 128)
DP_MOE_ATTENTION(bfloat16, bfloat16, 256)
DP_MOE_ATTENTION(float, float32, 32)
DP_MOE_ATTENTION(float, float32, 64)
DP_MOE_ATTENTION(float, float32, 128)
DP_MOE_ATTENTION(float, float32, 256)

}  // namespace dp_moe
