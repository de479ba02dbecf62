#include "dot_tiles.h"
#include "embedding_gradients.h"
#include "norms.h"

// The cross term of a tied table and the bound of its error: each dot product of an embedding row with a head row is
// off by at most dotError |s| |t| + dotUnderflow, and the head's tile, which is what is added to the sum, by tileError.
// Norms and sums are in double.

namespace dp_moe::embeddings {

template <class T>
DEVICE void rowNormsBody(const RowNormsParams& p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kEmbeddingThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  double squares = 0;
  for (int64_t c = threadIdx.x % kWarp * 4; c < p.d; c += kWarp * 4) {
    const Pack<float, 4> x = loadColumns<T, 4>(static_cast<const T*>(p.x) + row * p.d, c, p.d, p.packed);
    UNROLL
    for (int i = 0; i < 4; ++i) squares += static_cast<double>(x.value[i]) * static_cast<double>(x.value[i]);
  }
  squares = warpSum(squares);
  if (threadIdx.x % kWarp == 0) p.norms[row] = sqrt(squares);
}
KERNEL(rowNorms_float32, RowNormsParams) { rowNormsBody<float>(p); }
KERNEL(rowNorms_bfloat16, RowNormsParams) { rowNormsBody<bfloat16>(p); }

/// Relative error of an element of a tile of n rows (norms_tiles.cu) against its sum of |dy||x|; a product of tensor
/// cores adds 16 of them with as many truncations, two roundings each.
template <class T>
DEVICE double tileError(int64_t n) {
  const int64_t longest = n < kTileChunkRows ? n : kTileChunkRows;
  const int64_t inChunk = sizeof(T) == 2 ? (longest + 15) / 16 * 34 : longest;
  const auto roundings = static_cast<double>(inChunk + n / kTileChunkRows + 2);
  return roundings * 0x1p-24 / (1 - roundings * 0x1p-24);
}

template <class T>
DEVICE void tiedNormsBody(const TiedNormsParams& p, double* valueParts, double* boundParts) {
  using Tile = typename DotTiles<T>::Large;
  const UnitRows own = unitRows(p.embeddingOffsets, blockIdx.x, p.embeddingRows, p.wrongEmbeddingOffsets);
  const UnitRows head = unitRows(p.headOffsets, blockIdx.x, p.headRows, p.wrongHeadOffsets);
  const Report none{};
  const TileRows<T> left{static_cast<const T*>(p.dEmbedding) + own.first * p.d,
                         nullptr,
                         p.d,
                         0,
                         static_cast<int32_t>(own.last - own.first),
                         p.packed,
                         none};
  const TileRows<T> right{static_cast<const T*>(p.x) + head.first * p.d, nullptr,  p.d, 0,
                          static_cast<int32_t>(head.last - head.first),  p.packed, none};
  const T* dLogits = static_cast<const T*>(p.dLogits) + head.first * p.vocabulary;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const double error = dotError<T>(p.d) + tileError<T>(right.count), lost = dotUnderflow<T>(p.d);
  double sum = 0, bound = 0;
  for (int s = static_cast<int>(blockIdx.y) * Tile::rows; s < left.count; s += kTiedParts * Tile::rows) {
    for (int t = warp * Tile::columns; t < right.count; t += kTiedThreads / kWarp * Tile::columns) {
      float dots[Tile::values];
      tileDots<Tile>(left, s, right, t, dots);
      UNROLL
      for (int v = 0; v < Tile::values; ++v) {
        int row, column;
        const bool mine = Tile::place(v, row, column);
        row += s;
        column += t;
        if (!mine || row >= left.count || column >= right.count) continue;
        const int32_t id = p.ids[own.first + row];
        if (id < 0 || id >= p.vocabulary) {
          report(p.wrongId, id);
          continue;
        }
        const auto logit = static_cast<double>(toFloat(dLogits[column * p.vocabulary + id]));
        sum += logit * static_cast<double>(dots[v]);
        const double norms = p.embeddingNorms[own.first + row] * p.headNorms[head.first + column];
        bound += fabs(logit) * (error * norms + lost);
      }
    }
  }
  sum = blockSum(sum, valueParts);
  bound = blockSum(bound, boundParts);
  if (threadIdx.x == 0) {
    p.values[static_cast<int64_t>(blockIdx.x) * kTiedParts + blockIdx.y] = 2 * (sum + bound * (1 + 0x1p-20));
  }
}
KERNEL_BOUNDS(tiedNorms_float32, TiedNormsParams, kTiedThreads, 3) {
  SHARED(double, values, kTiedThreads / kWarp);
  SHARED(double, bounds, kTiedThreads / kWarp);
  tiedNormsBody<float>(p, values, bounds);
}
KERNEL_BOUNDS(tiedNorms_bfloat16, TiedNormsParams, kTiedThreads, 4) {
  SHARED(double, values, kTiedThreads / kWarp);
  SHARED(double, bounds, kTiedThreads / kWarp);
  tiedNormsBody<bfloat16>(p, values, bounds);
}

}  // namespace dp_moe::embeddings
