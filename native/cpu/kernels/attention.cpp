#include "kernels/attention_kernels.h"
#include "kernels/lanes.h"
#include "kernels/math.h"
#include "kernels/small_product.h"

// Softmax attention of one unit, in tiles of 64 queries by 64 keys counted from the unit's first row, so that memory
// does not grow with the unit and a row's chain of operations is that of its own unit. A tile's operands are packed
// into scratch with rows padded to whole vectors: queries and values as they are, keys also transposed, so that every
// product is a broadcast times rows (small_product.h).

namespace dp_moe::DP_MOE_ISA {

namespace {

constexpr int64_t kTile = 64;

DP_MOE_INLINE int64_t roundUp(int64_t n) { return (n + W - 1) / W * W; }

/// Tiles in scratch: rows of `width` = headSize rounded up, transposed tiles and scores [*, kTile].
struct Tiles {
  int64_t width;
  float* query;
  float* key;
  float* keyTransposed;
  float* value;
  float* valueTransposed;
  float* scores;
  float* dScores;
  float* output;  // backward: dy
  float* dQuery;
  float* dKey;
  float* dValue;
  float* rowMax;
  float* rowSum;
};

constexpr int kWideTiles = 9;

int64_t scratchSize(int64_t headSize) { return kWideTiles * kTile * roundUp(headSize) + 2 * kTile * kTile + 2 * kTile; }

Tiles tilesIn(float* scratch, int64_t headSize) {
  Tiles t = {};
  t.width = roundUp(headSize);
  const auto take = [&](int64_t floats) {
    float* part = scratch;
    scratch += floats;
    return part;
  };
  const int64_t wide = kTile * t.width;
  t.query = take(wide);
  t.key = take(wide);
  t.keyTransposed = take(wide);
  t.value = take(wide);
  t.valueTransposed = take(wide);
  t.output = take(wide);
  t.dQuery = take(wide);
  t.dKey = take(wide);
  t.dValue = take(wide);
  t.scores = take(kTile * kTile);
  t.dScores = take(kTile * kTile);
  t.rowMax = take(kTile);
  t.rowSum = take(kTile);
  return t;
}

/// rows of `size` floats at `stride`, times scale, into rows of `width` with zeros behind.
DP_MOE_INLINE void packRows(const float* x, int64_t stride, int64_t rows, int64_t size, float scale, float* tile,
                            int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    forVectors(size, [&]<bool full>(int64_t c, int64_t n) {
      store(tile + r * width + c, read<full>(x + r * stride + c, n) * scale);
    });
  }
}

/// tile [c, r] = x [r, c], in blocks of W x W: log2 W rounds of interleaving rows i and i + W / 2. Lanes past `rows`
/// up to the next whole vector are 0.
DP_MOE_INLINE void packTransposed(const float* x, int64_t stride, int64_t rows, int64_t size, float* tile) {
  for (int64_t r = 0; r < rows; r += W) {
    for (int64_t c = 0; c < size; c += W) {
      vf block[W];
      const int64_t n = smaller(W, size - c);
      for (int i = 0; i < W; ++i) block[i] = r + i < rows ? loadPartial(x + (r + i) * stride + c, n) : vf{};
      for (int round = 1; round < W; round *= 2) {
        vf next[W];
        for (int i = 0; i < W / 2; ++i) {
          next[2 * i] = interleaveLower(block[i], block[i + W / 2]);
          next[2 * i + 1] = interleaveUpper(block[i], block[i + W / 2]);
        }
        for (int i = 0; i < W; ++i) block[i] = next[i];
      }
      for (int i = 0; i < n; ++i) store(tile + (c + i) * kTile + r, block[i]);
    }
  }
}

DP_MOE_INLINE void unpackRow(const float* row, float scale, float* y, int64_t size) {
  forVectors(size, [&]<bool full>(int64_t c, int64_t n) { write<full>(y + c, load(row + c) * scale, n); });
}

/// How many keys of the tile at `firstKey` the query at `position` sees.
DP_MOE_INLINE int64_t visibleKeys(bool causal, int64_t position, int64_t firstKey, int64_t keys) {
  return causal ? smaller(keys, position - firstKey + 1) : keys;
}

/// The rows of one unit. Query i is at key position i + shift.
struct Extent {
  int64_t begin;
  int64_t rows;
  int64_t keyBegin;
  int64_t keys;
  int64_t shift;
};

template <class P>
DP_MOE_INLINE Extent extentOf(const P& p, int64_t unit) {
  const int32_t* offsets = p.offsets.data + unit;
  const int32_t* keyOffsets = p.keyOffsets.data != nullptr ? p.keyOffsets.data + unit : offsets;
  const int64_t rows = offsets[1] - offsets[0];
  const int64_t keys = keyOffsets[1] - keyOffsets[0];
  return {offsets[0], rows, keyOffsets[0], keys, keys - rows};
}

/// One head's bias as a row of 2 * span - 1.
template <class P>
DP_MOE_INLINE void packBias(const P& p, int64_t head, float* bias) {
  for (int64_t i = 0; i < 2 * p.span - 1; ++i) bias[i] = p.bias.data[i * p.heads + head];
}

/// scores[c] += the bias of the key at firstKey + c for the query at `position`.
DP_MOE_INLINE void addBias(const float* bias, int64_t span, int64_t position, int64_t firstKey, int64_t columns,
                           float* scores) {
  const auto last = static_cast<int32_t>(span - 1);
  for (int64_t c = 0; c < columns; c += W) {
    const vi distance = lanes() + static_cast<int32_t>(firstKey + c - position);
    const vi index = min(broadcast(last), max(broadcast(-last), distance)) + last;
    store(scores + c, load(scores + c) + gather(bias, index));
  }
}

/// dBias of each key's distance += dScores[c], c < visible: keys far before, keys within the span, keys far behind.
DP_MOE_INLINE void addBiasGradient(const float* dScores, int64_t span, int64_t position, int64_t firstKey,
                                   int64_t visible, float* dBias) {
  const int64_t first = firstKey - position + span - 1;  // row of column 0, were it not clamped
  const int64_t near = larger(0, smaller(visible, -first));
  const int64_t far = larger(near, smaller(visible, 2 * span - 1 - first));
  for (int64_t c = 0; c < near; ++c) dBias[0] += dScores[c];
  forVectors(far - near, [&]<bool full>(int64_t c, int64_t n) {
    float* sum = dBias + (first + near + c);
    write<full>(sum, read<full>(sum, n) + read<full>(dScores + near + c, n), n);
  });
  for (int64_t c = far; c < visible; ++c) dBias[2 * span - 2] += dScores[c];
}

/// One row of scores joins the running maximum and sum; the row becomes exp(score - maximum), 0 beyond `visible`, and
/// the output row is scaled to the new maximum.
DP_MOE_INLINE void softmaxStep(const Tiles& t, int64_t row, int64_t visible, int64_t columns, bool first) {
  float* scores = t.scores + row * kTile;
  vf top = broadcast(-kInfinity);
  for (int64_t c = 0; c < columns; c += W) {
    const vi seen = lanes() < static_cast<int32_t>(visible - c);
    const vf masked = select(seen, load(scores + c), broadcast(-kInfinity));
    store(scores + c, masked);
    top = max(masked, top);
  }
  const float tileMax = reduceMax(top);
  const float newMax = first || tileMax > t.rowMax[row] ? tileMax : t.rowMax[row];
  vf sum = {};
  for (int64_t c = 0; c < columns; c += W) {
    const vf e = exp(load(scores + c) - newMax);
    store(scores + c, e);
    sum += e;
  }
  const float tileSum = reduceAdd(sum);
  if (first) {
    t.rowSum[row] = tileSum;
  } else {
    const vf correction = exp(broadcast(t.rowMax[row] - newMax));
    t.rowSum[row] = fma(broadcast(t.rowSum[row]), correction, broadcast(tileSum))[0];
    float* output = t.output + row * t.width;
    for (int64_t c = 0; c < t.width; c += W) store(output + c, load(output + c) * correction);
  }
  t.rowMax[row] = newMax;
}

/// A query that sees no key.
DP_MOE_INLINE void writeUnseen(const AttentionParams& p, int64_t row, int64_t head) {
  float* y = p.y.data + (row * p.heads + head) * p.headSize;
  for (int64_t c = 0; c < p.headSize; ++c) y[c] = 0;
  p.logSumExp.data[row * p.heads + head] = -kInfinity;
}

void attention(const AttentionParams& p, int64_t unit, int64_t keyValueHead, float* scratch) {
  const Tiles t = tilesIn(scratch, p.headSize);
  float* bias = scratch + scratchSize(p.headSize);
  const auto [begin, rows, keyBegin, allKeys, shift] = extentOf(p, unit);
  const int64_t group = p.heads / p.keyValueHeads;
  const int64_t queryStride = p.heads * p.headSize;
  const int64_t keyStride = p.keyValueHeads * p.headSize;
  int64_t packed = -1;  // the first key of the tile in scratch

  for (int64_t head = keyValueHead * group; head < (keyValueHead + 1) * group; ++head) {
    if (p.bias.data != nullptr) packBias(p, head, bias);
    for (int64_t q = 0; q < rows; q += kTile) {
      const int64_t queries = smaller(kTile, rows - q);
      const int64_t queryAt = (begin + q) * queryStride + head * p.headSize;
      packRows(p.q.data + queryAt, queryStride, queries, p.headSize, p.scale, t.query, t.width);
      const int64_t seenKeys = p.causal ? smaller(allKeys, q + queries + shift) : allKeys;
      const int64_t unseen = !p.causal ? (allKeys > 0 ? 0 : queries) : smaller(queries, larger(0, -(q + shift)));
      for (int64_t k = 0; k < seenKeys; k += kTile) {
        const int64_t keys = smaller(kTile, allKeys - k);
        const int64_t columns = roundUp(keys);
        if (packed != k) {
          const int64_t keyAt = (keyBegin + k) * keyStride + keyValueHead * p.headSize;
          packTransposed(p.k.data + keyAt, keyStride, keys, p.headSize, t.keyTransposed);
          packRows(p.v.data + keyAt, keyStride, keys, p.headSize, 1.0f, t.value, t.width);
          packed = k;
        }
        smallProduct(
            {t.query, t.width, 1, t.keyTransposed, kTile, t.scores, kTile, queries, columns, p.headSize, false});
        for (int64_t i = unseen; i < queries; ++i) {
          const int64_t position = q + i + shift;
          if (p.bias.data != nullptr) addBias(bias, p.span, position, k, columns, t.scores + i * kTile);
          softmaxStep(t, i, visibleKeys(p.causal, position, k, keys), columns, k == 0);
        }
        smallProduct({t.scores, kTile, 1, t.value, t.width, t.output, t.width, queries, t.width, keys, k != 0});
      }
      for (int64_t i = 0; i < unseen; ++i) writeUnseen(p, begin + q + i, head);
      for (int64_t i = unseen; i < queries; ++i) {
        unpackRow(t.output + i * t.width, 1.0f / t.rowSum[i], p.y.data + queryAt + i * queryStride, p.headSize);
        p.logSumExp.data[(begin + q + i) * p.heads + head] = t.rowMax[i] + logPositive(broadcast(t.rowSum[i]))[0];
      }
    }
  }
}

/// dq of a unit without keys.
DP_MOE_INLINE void clearQueryGradients(const AttentionBackwardParams& p, int64_t begin, int64_t rows, int64_t firstHead,
                                       int64_t heads) {
  for (int64_t r = begin; r < begin + rows; ++r) {
    float* dq = p.dq.data + (r * p.heads + firstHead) * p.headSize;
    for (int64_t c = 0; c < heads * p.headSize; ++c) dq[c] = 0;
  }
}

/// With P the softmax and D = <dy, y> of each query: dV = P' dy, dS = P (dy V' - D), dQ = scale dS K, dK = scale dS' Q.
/// Key tiles outside, so that dK and dV of a tile are summed in scratch over heads, then queries, in order; dQ is
/// summed in its output over key tiles, in order, the gradient of the bias in scratch over key tiles, heads, queries.
void attentionBackward(const AttentionBackwardParams& p, int64_t unit, int64_t keyValueHead, float* scratch) {
  const Tiles t = tilesIn(scratch, p.headSize);
  float* bias = scratch + scratchSize(p.headSize);
  const int64_t biasRows = 2 * p.span - 1;
  float* dBias = bias + biasRows;
  const auto [begin, rows, keyBegin, allKeys, shift] = extentOf(p, unit);
  const int64_t group = p.heads / p.keyValueHeads;
  const int64_t queryStride = p.heads * p.headSize;
  const int64_t keyStride = p.keyValueHeads * p.headSize;

  if (p.dBias.data != nullptr) {
    for (int64_t i = 0; i < group * biasRows; ++i) dBias[i] = 0;
  }
  if (allKeys == 0) clearQueryGradients(p, begin, rows, keyValueHead * group, group);
  for (int64_t k = 0; k < allKeys; k += kTile) {
    const int64_t keys = smaller(kTile, allKeys - k);
    const int64_t columns = roundUp(keys);
    // The first tile of keys reaches all queries, so that the gradient of one that sees no key is written as well.
    const int64_t firstQuery = p.causal && k > 0 ? larger(0, k - shift) / kTile * kTile : 0;
    const int64_t keyAt = (keyBegin + k) * keyStride + keyValueHead * p.headSize;
    packRows(p.k.data + keyAt, keyStride, keys, p.headSize, 1.0f, t.key, t.width);
    packTransposed(p.k.data + keyAt, keyStride, keys, p.headSize, t.keyTransposed);
    packTransposed(p.v.data + keyAt, keyStride, keys, p.headSize, t.valueTransposed);
    bool first = true;
    for (int64_t head = keyValueHead * group; head < (keyValueHead + 1) * group; ++head) {
      if (p.bias.data != nullptr) packBias(p, head, bias);
      for (int64_t q = firstQuery; q < rows; q += kTile) {
        const int64_t queries = smaller(kTile, rows - q);
        const int64_t queryAt = (begin + q) * queryStride + head * p.headSize;
        packRows(p.q.data + queryAt, queryStride, queries, p.headSize, p.scale, t.query, t.width);
        packRows(p.dy.data + queryAt, queryStride, queries, p.headSize, 1.0f, t.output, t.width);
        smallProduct(
            {t.query, t.width, 1, t.keyTransposed, kTile, t.scores, kTile, queries, columns, p.headSize, false});
        smallProduct(
            {t.output, t.width, 1, t.valueTransposed, kTile, t.dScores, kTile, queries, columns, p.headSize, false});
        for (int64_t i = 0; i < queries; ++i) {
          const float* y = p.y.data + queryAt + i * queryStride;
          vf dot = {};
          forVectors(p.headSize, [&]<bool full>(int64_t c, int64_t n) {
            dot = fma(load(t.output + i * t.width + c), read<full>(y + c, n), dot);
          });
          const float rowDot = reduceAdd(dot);
          const float logSumExp = p.logSumExp.data[(begin + q + i) * p.heads + head];
          const int64_t position = q + i + shift;
          const int64_t visible = visibleKeys(p.causal, position, k, keys);
          if (p.bias.data != nullptr) addBias(bias, p.span, position, k, columns, t.scores + i * kTile);
          for (int64_t c = 0; c < columns; c += W) {
            const vi seen = lanes() < static_cast<int32_t>(visible - c);
            const vf probability = select(seen, exp(load(t.scores + i * kTile + c) - logSumExp), vf{});
            store(t.scores + i * kTile + c, probability);
            const vf dScore = probability * (load(t.dScores + i * kTile + c) - rowDot);
            store(t.dScores + i * kTile + c, select(seen, dScore, vf{}));
          }
          if (p.dBias.data != nullptr) {
            float* dBiasOfHead = dBias + (head - keyValueHead * group) * biasRows;
            addBiasGradient(t.dScores + i * kTile, p.span, position, k, visible, dBiasOfHead);
          }
        }
        smallProduct({t.scores, 1, kTile, t.output, t.width, t.dValue, t.width, keys, t.width, queries, !first});
        smallProduct({t.dScores, 1, kTile, t.query, t.width, t.dKey, t.width, keys, t.width, queries, !first});
        first = false;
        smallProduct({t.dScores, kTile, 1, t.key, t.width, t.dQuery, t.width, queries, t.width, keys, false});
        for (int64_t i = 0; i < queries; ++i) {
          float* dq = p.dq.data + queryAt + i * queryStride;
          const float* row = t.dQuery + i * t.width;
          forVectors(p.headSize, [&]<bool full>(int64_t c, int64_t n) {
            const vf earlier = k == 0 ? vf{} : read<full>(dq + c, n);
            write<full>(dq + c, fma(load(row + c), broadcast(p.scale), earlier), n);
          });
        }
      }
    }
    if (first) {  // no query
      for (int64_t i = 0; i < keys * t.width; ++i) t.dKey[i] = t.dValue[i] = 0;
    }
    for (int64_t j = 0; j < keys; ++j) {
      unpackRow(t.dKey + j * t.width, 1.0f, p.dk.data + keyAt + j * keyStride, p.headSize);
      unpackRow(t.dValue + j * t.width, 1.0f, p.dv.data + keyAt + j * keyStride, p.headSize);
    }
  }
  if (p.dBias.data == nullptr) return;
  for (int64_t i = 0; i < biasRows; ++i) {
    float* row = p.dBias.data + (unit * biasRows + i) * p.heads + keyValueHead * group;
    for (int64_t h = 0; h < group; ++h) row[h] = dBias[h * biasRows + i];
  }
}

}  // namespace

extern const AttentionKernels attentionKernels;
const AttentionKernels attentionKernels = {
    .scratchSize = scratchSize,
    .attention = attention,
    .attentionBackward = attentionBackward,
};

}  // namespace dp_moe::DP_MOE_ISA
