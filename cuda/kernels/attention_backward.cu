#include "attention.h"
#include "attention_tiles.h"
#include "reductions.h"
#include "warp_product.h"

// Attention, backward. With P the softmax and D = <dy, y> of each query: dV = P' dy, dS = P (dy V' - D), dQ = scale dS
// K, dK = scale dS' Q, and the gradient of the bias sums dS over the pairs of one distance. Scores are made again from
// logSumExp, once by blocks that hold queries (dQ, dBias) and once by blocks that hold keys (dK, dV): each gradient is
// summed by one block in a fixed order.

namespace dp_moe {

namespace attention {

/// What a block holds; the other side streams past it.
enum class Side { queries, keys };

using BackwardParams = AttentionBackwardKernelParams;

/// Shared memory of a block.
template <class T, int head>
struct Memory {
  using Shape = Backward<T, head>;
  static constexpr int kTile = Shape::kStreamed * kStride<T, head>;
  T* own;             // q and dy, or k and v
  T* streamed;        // k and v, or q and dy, twice
  float* scratch;     // of multiplyWeights
  float* statistics;  // of streamed queries: logSumExp, then D, twice
  float* windows;     // biases, twice
  float* square;      // dS of a pair of tiles, for dBias
  float* diagonals;   // its sums

  DEVICE explicit Memory(T* start, bool bias) {
    own = start;
    streamed = own + 2 * Shape::kRows * kStride<T, head>;
    scratch = reinterpret_cast<float*>(streamed + 4 * kTile);
    statistics = scratch + Shape::kScratchFloats;
    windows = statistics + 4 * Shape::kStreamed;
    square = windows + (bias ? 2 * Shape::kWindow : 0);
    diagonals = square + Shape::kRows * (Shape::kStreamed + 1);
  }
};

/// What to subtract from a query's scores: one that sees no key gets weights exp(-infinity - infinity) = 0.
DEVICE float logOfWeights(float logSumExp) { return logSumExp == -kInfinity ? kInfinity : logSumExp; }

/// The unit's gradient of a head's bias += sums over the diagonals of a square of dS. Diagonals in rising order of
/// their distance, each by one thread in order of its queries; those that share a row of the bias are neighbours.
template <class T, int head>
DEVICE void addBiasGradient(const BackwardParams& p, const Memory<T, head>& memory, int64_t unit, int64_t queryHead,
                            int queries, int64_t distance) {
  using Shape = Backward<T, head>;
  constexpr int kLine = Shape::kStreamed + 1;
  static_assert(Shape::kWindow - 1 <= Shape::kThreads);
  const int diagonal = static_cast<int>(threadIdx.x);
  const int offset = diagonal - (Shape::kRows - 1);  // key - query
  float sum = 0;
  for (int query = max(0, -offset); query < min(queries, Shape::kStreamed - offset); ++query) {
    sum += memory.square[query * kLine + query + offset];
  }
  if (diagonal < Shape::kWindow - 1) memory.diagonals[diagonal] = sum;
  __syncthreads();
  const auto rowOf = [&](int place) {
    const int64_t row = distance + place - (Shape::kRows - 1);
    return (row < -(p.span - 1) ? -(p.span - 1) : row > p.span - 1 ? p.span - 1 : row) + p.span - 1;
  };
  const int64_t row = rowOf(diagonal);
  if (diagonal >= Shape::kWindow - 1 || (diagonal > 0 && rowOf(diagonal - 1) == row)) return;
  float& total = p.dBias[(unit * (2 * p.span - 1) + row) * p.heads + queryHead];
  for (int next = diagonal + 1; next < Shape::kWindow - 1 && rowOf(next) == row; ++next) sum += memory.diagonals[next];
  total += sum;
}

/// The gradients of the block's tile from row `first` of the unit on. `ownHead` is a head of queries or of keys.
template <class T, int head, Side side>
DEVICE void backwardTile(const BackwardParams& p, const Memory<T, head>& memory, int64_t unitIndex, const Extent& unit,
                         int64_t ownHead, int first) {
  using Shape = Backward<T, head>;
  constexpr bool kQueries = side == Side::queries;
  constexpr int kRows = Shape::kRows;
  constexpr int kStreamed = Shape::kStreamed;
  constexpr int kColumns = Shape::kColumns;
  constexpr int kTileStride = kStride<T, head>;
  constexpr int kTile = Memory<T, head>::kTile;
  const auto headSize = static_cast<int>(p.headSize);
  const auto group = static_cast<int>(p.heads / p.keyValueHeads);
  const int64_t queryStep = p.heads * p.headSize;
  const int64_t keyStep = p.keyValueHeads * p.headSize;
  const int64_t ownStep = kQueries ? queryStep : keyStep;
  const int64_t streamedStep = kQueries ? keyStep : queryStep;
  const int rows = min(kRows, (kQueries ? unit.queries : unit.keys) - first);
  const int64_t ownAt = ((kQueries ? unit.firstQuery : unit.firstKey) + first) * ownStep + ownHead * headSize;

  // The streamed rows that the tile meets, in tiles counted from the unit's first row. Keys meet all heads of their
  // group, one after the other.
  const int begin = !kQueries && p.causal ? max(0, first - unit.shift) / kStreamed * kStreamed : 0;
  const int end = !kQueries ? unit.queries : p.causal ? min(unit.keys, first + rows + unit.shift) : unit.keys;
  const int perHead = end > begin ? (end - begin + kStreamed - 1) / kStreamed : 0;
  const int items = kQueries ? perHead : perHead * group;

  const auto load = [&](int item, int stage) {
    const int at = begin + (kQueries ? item : item % perHead) * kStreamed;
    const int64_t queryHead = kQueries ? ownHead : ownHead * group + item / perHead;
    const int64_t streamedHead = kQueries ? ownHead / group : queryHead;
    const int valid = (kQueries ? unit.keys : unit.queries) - at;
    const int64_t row = (kQueries ? unit.firstKey : unit.firstQuery) + at;
    const int64_t from = row * streamedStep + streamedHead * headSize;
    T* tile = memory.streamed + stage * 2 * kTile;
    loadTile<T, kStreamed, head, Shape::kThreads>(tile, static_cast<const T*>(kQueries ? p.k : p.q) + from,
                                                  streamedStep, valid, headSize, p.packed);
    loadTile<T, kStreamed, head, Shape::kThreads>(tile + kTile, static_cast<const T*>(kQueries ? p.v : p.dy) + from,
                                                  streamedStep, valid, headSize, p.packed);
    commitAsync();
    if (!kQueries && threadIdx.x < kStreamed) {
      // A query that does not exist gets weights exp(0 - infinity) = 0.
      const int query = static_cast<int>(threadIdx.x);
      float* statistics = memory.statistics + stage * 2 * kStreamed;
      statistics[query] = query < valid ? logOfWeights(p.logSumExp[(row + query) * p.heads + queryHead]) : kInfinity;
      statistics[kStreamed + query] = query < valid ? p.dots[(row + query) * p.heads + queryHead] : 0.0f;
    }
    if (p.bias != nullptr) {
      const int64_t distance = kQueries ? at - first - unit.shift : first - at - unit.shift;
      loadBias(memory.windows + stage * Shape::kWindow, p, queryHead, kQueries ? kRows : kStreamed,
               kQueries ? kStreamed : kRows, distance, Shape::kThreads);
    }
  };
  if (items > 0) {
    loadTile<T, kRows, head, Shape::kThreads>(memory.own, static_cast<const T*>(kQueries ? p.q : p.k) + ownAt, ownStep,
                                              rows, headSize, p.packed);
    loadTile<T, kRows, head, Shape::kThreads>(memory.own + kRows * kTileStride,
                                              static_cast<const T*>(kQueries ? p.dy : p.v) + ownAt, ownStep, rows,
                                              headSize, p.packed);
    load(0, 0);
  }

  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warpRow = warp % Shape::kRowWarps * 16;
  const int column = warp / Shape::kRowWarps * kColumns;  // of the gradient
  const int row = warpRow + lane / 4;
  float ownSums[1][kColumns / 8][4];                   // dQ or dK, without the scale
  float valueSums[1][kQueries ? 1 : kColumns / 8][4];  // dV
  clear(ownSums[0]);
  clear(valueSums[0]);
  float logSumExp[2] = {kInfinity, kInfinity};
  float dots[2] = {0, 0};
  if (kQueries) {
    UNROLL for (int half = 0; half < 2; ++half) {
      if (row + half * 8 >= rows) continue;
      const int64_t at = (unit.firstQuery + first + row + half * 8) * p.heads + ownHead;
      logSumExp[half] = logOfWeights(p.logSumExp[at]);
      dots[half] = p.dots[at];
    }
  }

  for (int item = 0, stage = 0; item < items; ++item, stage ^= 1) {
    waitAsync<0>();
    __syncthreads();  // this stage is there, and nobody reads the other one any more
    if (item + 1 < items) load(item + 1, stage ^ 1);
    const int at = begin + (kQueries ? item : item % perHead) * kStreamed;
    if (warpRow < rows) {
      const T* ownTile = memory.own + warpRow * kTileStride;
      const T* tile = memory.streamed + stage * 2 * kTile;
      float weights[1][kStreamed / 8][4];  // P, or its transpose
      float dScores[1][kStreamed / 8][4];
      clear(weights[0]);
      clear(dScores[0]);
      multiplyRows<1, kStreamed, head>(weights, ownTile, 0, tile, kTileStride);
      multiplyRows<1, kStreamed, head>(dScores, ownTile + kRows * kTileStride, 0, tile + kTile, kTileStride);
      scaleScores<kStreamed>(weights[0], p.scale);
      if (p.bias != nullptr) {
        const float* window = memory.windows + stage * Shape::kWindow;
        if (kQueries) {
          addBias<kStreamed, 1>(weights[0], window + kRows - 1 - row);
        } else {
          addBias<kStreamed, -1>(weights[0], window + kStreamed - 1 + row);
        }
      }
      if (kQueries) {
        const int position = first + unit.shift;
        if (at + kStreamed > (p.causal ? min(unit.keys, position + 1) : unit.keys)) {
          hideScores<kStreamed>(weights[0], visibleKeys(unit.keys - at, p.causal, position + row - at));
        }
      } else if (p.causal && at + unit.shift < first + kRows - 1) {
        const int own = first + row - unit.shift - at;  // the first query that sees the key
        hideScores<kStreamed>(weights[0], {{own, own + 8}, {kStreamed, kStreamed}});
      }
      const float* statistics = memory.statistics + stage * 2 * kStreamed;
      UNROLL for (int j = 0; j < kStreamed / 8; ++j) {
        UNROLL for (int n = 0; n < 4; ++n) {
          const int query = j * 8 + lane % 4 * 2 + n % 2;
          const float log = kQueries ? logSumExp[n / 2] : statistics[query];
          const float dot = kQueries ? dots[n / 2] : statistics[kStreamed + query];
          const float weight = expf(weights[0][j][n] - log);
          weights[0][j][n] = weight;
          // Not 0 times what a hidden key may hold.
          dScores[0][j][n] = weight == 0 ? 0.0f : weight * (dScores[0][j][n] - dot);
        }
      }
      float* scratch = memory.scratch + warp * kWeightScratch<T, kStreamed>;
      multiplyWeights<1, kColumns, kStreamed>(ownSums, dScores, tile + column, kTileStride, scratch);
      if constexpr (!kQueries) {
        multiplyWeights<1, kColumns, kStreamed>(valueSums, weights, tile + kTile + column, kTileStride, scratch);
      }
      if (kQueries && p.dBias != nullptr && column == 0) {
        UNROLL for (int j = 0; j < kStreamed / 8; ++j) {
          UNROLL for (int n = 0; n < 4; ++n) {
            const int key = j * 8 + lane % 4 * 2 + n % 2;
            memory.square[(row + n / 2 * 8) * (kStreamed + 1) + key] = dScores[0][j][n];
          }
        }
      }
    }
    if (kQueries && p.dBias != nullptr) {
      __syncthreads();
      addBiasGradient(p, memory, unitIndex, ownHead, rows, at - first - unit.shift);
    }
  }

  if (warpRow >= rows) return;
  const int64_t to = ownAt + warpRow * ownStep + column;
  const float scales[2] = {p.scale, p.scale};
  const float ones[2] = {1, 1};
  storeRows<T, kColumns>(static_cast<T*>(kQueries ? p.dq : p.dk) + to, ownStep, ownSums[0], scales, rows - warpRow,
                         headSize - column, p.packed);
  if constexpr (!kQueries) {
    storeRows<T, kColumns>(static_cast<T*>(p.dv) + to, ownStep, valueSums[0], ones, rows - warpRow, headSize - column,
                           p.packed);
  }
}

/// A block has one tile of queries; with dBias it has all of a unit's, whose bias gradient it sums.
template <class T, int head>
DEVICE void backwardOfQueries(const BackwardParams& p) {
  DYNAMIC_SHARED(T, start);
  const Memory<T, head> memory(start, p.bias != nullptr);
  constexpr int kRows = Backward<T, head>::kRows;
  checkUnits(p);
  Tile tile = {blockIdx.x, 0};
  if (p.dBias == nullptr) tile = tileOfSlot(p.offsets, p.units, blockIdx.x, kRows);
  if (tile.unit < 0) return;
  const Extent unit = extentOf(p, tile.unit);
  const int end = p.dBias == nullptr ? min(tile.first + kRows, unit.queries) : unit.queries;
  if (p.dBias != nullptr) {
    for (int64_t i = threadIdx.x; i < 2 * p.span - 1; i += blockDim.x) {
      p.dBias[(tile.unit * (2 * p.span - 1) + i) * p.heads + blockIdx.y] = 0;
    }
  }
  // The barriers of addBiasGradient stand between the tiles, and between this and the first sum.
  for (int first = tile.first; first < end; first += kRows) {
    backwardTile<T, head, Side::queries>(p, memory, tile.unit, unit, blockIdx.y, first);
  }
}

template <class T, int head>
DEVICE void backwardOfKeys(const BackwardParams& p) {
  DYNAMIC_SHARED(T, start);
  const Memory<T, head> memory(start, p.bias != nullptr);
  const Tile tile = tileOfSlot(p.keyOffsets, p.units, blockIdx.x, Backward<T, head>::kRows);
  if (tile.unit < 0) return;
  backwardTile<T, head, Side::keys>(p, memory, tile.unit, extentOf(p, tile.unit), blockIdx.y, tile.first);
}

/// One warp per query and head.
template <class T>
DEVICE void queryDots(const BackwardParams& p) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t pair = thread / kWarp;
  const int64_t row = pair / p.heads;
  if (row < p.offsets[0] || row >= p.offsets[p.units] || row >= p.rows) return;
  const T* dy = static_cast<const T*>(p.dy) + pair * p.headSize;
  const T* y = static_cast<const T*>(p.y) + pair * p.headSize;
  float dot = 0;
  for (int64_t c = thread % kWarp; c < p.headSize; c += kWarp) dot = fmaf(toFloat(dy[c]), toFloat(y[c]), dot);
  dot = warpSum(dot);
  if (thread % kWarp == 0) p.dots[pair] = dot;
}

}  // namespace attention

KERNEL(attentionDots_bfloat16, AttentionBackwardKernelParams) { attention::queryDots<bfloat16>(p); }
KERNEL(attentionDots_float32, AttentionBackwardKernelParams) { attention::queryDots<float>(p); }

#define DP_MOE_ATTENTION_BACKWARD(T, type, head)                                          \
  KERNEL_BOUNDS(attentionQueries##head##_##type, AttentionBackwardKernelParams, 128, 2) { \
    attention::backwardOfQueries<T, head>(p);                                             \
  }                                                                                       \
  KERNEL_BOUNDS(attentionKeys##head##_##type, AttentionBackwardKernelParams, 128, 2) {    \
    attention::backwardOfKeys<T, head>(p);                                                \
  }
DP_MOE_ATTENTION_BACKWARD(bfloat16, bfloat16, 32)
DP_MOE_ATTENTION_BACKWARD(bfloat16, bfloat16, 64)
DP_MOE_ATTENTION_BACKWARD(bfloat16, bfloat16, 128)
DP_MOE_ATTENTION_BACKWARD(bfloat16, bfloat16, 256)
DP_MOE_ATTENTION_BACKWARD(float, float32, 32)
DP_MOE_ATTENTION_BACKWARD(float, float32, 64)
DP_MOE_ATTENTION_BACKWARD(float, float32, 128)
DP_MOE_ATTENTION_BACKWARD(float, float32, 256)

}  // namespace dp_moe
