#include "columns.h"
#include "norms.h"
#include "reductions.h"
#include "unit_rows.h"

// Tiles dy' x of whole segments, a block of kTileRows x kTileColumns at a time, and their squared norms. Rows come
// through shared memory in stages, two of them on their way while one is multiplied. Sums run over the rows in order,
// in chunks of kTileChunkRows: the chains of the tensor cores stay short.

namespace dp_moe::norms {

constexpr int kStages = 3;
/// Elements between the rows of a stage: 16 bytes more than they need, so that a column's reads meet all banks.
template <class T>
constexpr int kDyStride = kTileRows + kPack<T>;
template <class T>
constexpr int kXStride = kTileColumns + kPack<T>;
template <class T>
constexpr int kStageRows = 8 * kPack<T> / 2;  // 16 of float32, 32 of bfloat16
template <class T>
constexpr int kStageSize = kStageRows<T> * (kDyStride<T> + kXStride<T>);

/// A block of a segment's tile.
struct TileBlock {
  UnitRows rows;
  int64_t row;
  int64_t column;
};

/// One pack of a stage: columns [column, column + pack) of a row, or zeros.
template <class T>
DEVICE void stagePack(T* to, const T* row, int64_t column, int64_t columns, bool packed, const T* anywhere) {
  const bool inside = row != nullptr && column < columns;
  if (packed) {
    copyAsync16(to, inside ? row + column : anywhere, inside ? 16 : 0);
  } else {
    UNROLL
    for (int i = 0; i < kPack<T>; ++i) to[i] = inside && column + i < columns ? row[column + i] : T{};
  }
}

/// Rows [first, first + kStageRows) of the segment, one pack of dy and two of x per thread.
template <class T>
DEVICE void loadStage(T* stage, const SegmentOperands& operands, const TileBlock& block, int64_t first) {
  constexpr int kDyPacks = kTileRows / kPack<T>, kXPacks = kTileColumns / kPack<T>;
  static_assert(kStageRows<T> * kDyPacks == kNormThreads && kStageRows<T> * kXPacks == 2 * kNormThreads);
  const int64_t left = block.rows.last - block.rows.first - first;
  const auto* dy = static_cast<const T*>(operands.dy);
  const auto* x = static_cast<const T*>(operands.x);
  const int thread = static_cast<int>(threadIdx.x);
  {
    const int row = thread / kDyPacks, column = thread % kDyPacks * kPack<T>;
    const T* from = row < left ? dy + (block.rows.first + first + row) * operands.p : nullptr;
    stagePack(stage + row * kDyStride<T> + column, from, block.row + column, operands.p, operands.packedDy, dy);
  }
  stage += kStageRows<T> * kDyStride<T>;
  UNROLL
  for (int turn = 0; turn < 2; ++turn) {
    const int pack = thread + turn * kNormThreads;
    const int row = pack / kXPacks, column = pack % kXPacks * kPack<T>;
    const T* from = nullptr;
    if (row < left) {
      const int64_t at = block.rows.first + first + row;
      const int64_t xRow = operands.xRows == nullptr ? at : operands.xRows[at];
      if (xRow >= 0 && xRow < operands.xCount) {
        from = x + xRow * operands.d;
      } else {
        report(operands.wrongRow, xRow);
      }
    }
    stagePack(stage + row * kXStride<T> + column, from, block.column + column, operands.d, operands.packedX, x);
  }
}

/// The sums of one thread: 4 rows x 8 columns of the block.
template <class T>
struct TileSums;

/// Thread (y, x) of 16 x 16: rows 4 y + i, columns 4 x + j and 64 + 4 x + j.
template <>
struct TileSums<float> {
  float value[4][8];

  DEVICE void add(const float* stage) {
    const int y = static_cast<int>(threadIdx.x) / 16 * 4, x = static_cast<int>(threadIdx.x) % 16 * 4;
    const float* dy = stage + y;
    const float* right = stage + kStageRows<float> * kDyStride<float> + x;
    UNROLL
    for (int k = 0; k < kStageRows<float>; ++k) {
      const auto l = loadPack<float, 4>(dy + k * kDyStride<float>);
      UNROLL
      for (int half = 0; half < 2; ++half) {
        const auto r = loadPack<float, 4>(right + k * kXStride<float> + half * 64);
        UNROLL
        for (int i = 0; i < 4; ++i) {
          UNROLL
          for (int j = 0; j < 4; ++j) value[i][half * 4 + j] = fmaf(l.value[i], r.value[j], value[i][half * 4 + j]);
        }
      }
    }
  }
  DEVICE static int row(int i, int) { return static_cast<int>(threadIdx.x) / 16 * 4 + i; }
  DEVICE static int column(int, int j) { return j / 4 * 64 + static_cast<int>(threadIdx.x) % 16 * 4 + j % 4; }
};

/// Warp (y, x) of 2 x 4: a square of 32, as 2 x 4 products of mma; value[2 m + h] are those of m's rows g + 8 h.
template <>
struct TileSums<bfloat16> {
  float value[4][8];

  DEVICE void add(const bfloat16* stage) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    // Both operands lie row by row, the rows being what is summed over: matrices are read transposed.
    const bfloat16* dy = stage + (lane / 16 * 8 + lane % 8) * kDyStride<bfloat16> + warp / 4 * 32 + lane / 8 % 2 * 8;
    const bfloat16* x = stage + kStageRows<bfloat16> * kDyStride<bfloat16> + lane % 16 * kXStride<bfloat16> +
                        warp % 4 * 32 + lane / 16 * 8;
    UNROLL
    for (int k = 0; k < kStageRows<bfloat16>; k += 16) {
      uint32_t l[2][4], r[2][4];
      UNROLL
      for (int m = 0; m < 2; ++m) loadMatrix4Transposed(l[m], dy + k * kDyStride<bfloat16> + 16 * m);
      UNROLL
      for (int n = 0; n < 2; ++n) loadMatrix4Transposed(r[n], x + k * kXStride<bfloat16> + 16 * n);
      UNROLL
      for (int m = 0; m < 2; ++m) {
        UNROLL
        for (int n = 0; n < 4; ++n) {
          float c[4] = {value[2 * m][2 * n], value[2 * m][2 * n + 1], value[2 * m + 1][2 * n],
                        value[2 * m + 1][2 * n + 1]};
          multiplyAccumulate(c, l[m], {r[n / 2][n % 2 * 2], r[n / 2][n % 2 * 2 + 1]});
          value[2 * m][2 * n] = c[0];
          value[2 * m][2 * n + 1] = c[1];
          value[2 * m + 1][2 * n] = c[2];
          value[2 * m + 1][2 * n + 1] = c[3];
        }
      }
    }
  }
  DEVICE static int row(int i, int) {
    return static_cast<int>(threadIdx.x) / kWarp / 4 * 32 + i / 2 * 16 + i % 2 * 8 +
           static_cast<int>(threadIdx.x) % kWarp / 4;
  }
  DEVICE static int column(int, int j) {
    return static_cast<int>(threadIdx.x) / kWarp % 4 * 32 + j / 2 * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + j % 2;
  }
};

/// The elements of a block that this thread makes: one chain over the rows of the segment each, whichever op asks.
template <class T>
DEVICE TileSums<T> tileBlock(const SegmentOperands& operands, const TileBlock& block, T* stages) {
  const int64_t count = block.rows.last - block.rows.first;
  UNROLL
  for (int s = 0; s < kStages - 1; ++s) {
    if (s * kStageRows<T> < count) loadStage(stages + s * kStageSize<T>, operands, block, s * kStageRows<T>);
    commitAsync();
  }
  TileSums<T> total = {}, chunk = {};
  int stage = 0;
  for (int64_t first = 0; first < count; first += kStageRows<T>) {
    waitAsync<kStages - 2>();
    __syncthreads();
    // Into the stage that all have multiplied before they came here. Nothing is on its way when the last one is.
    const int64_t next = first + (kStages - 1) * kStageRows<T>;
    if (next < count) loadStage(stages + (stage + kStages - 1) % kStages * kStageSize<T>, operands, block, next);
    commitAsync();
    chunk.add(stages + stage * kStageSize<T>);
    stage = (stage + 1) % kStages;
    if ((first + kStageRows<T>) % kTileChunkRows != 0 && first + kStageRows<T> < count) continue;
    UNROLL
    for (int i = 0; i < 4; ++i) {
      UNROLL
      for (int j = 0; j < 8; ++j) total.value[i][j] += chunk.value[i][j];
    }
    chunk = {};
  }
  return total;
}

/// f(element, value) for those of the thread's elements that lie in the tile [p, d].
template <class T, class F>
DEVICE void forElements(const SegmentOperands& operands, const TileBlock& block, const TileSums<T>& sums, F&& f) {
  UNROLL
  for (int i = 0; i < 4; ++i) {
    UNROLL
    for (int j = 0; j < 8; ++j) {
      const int64_t row = block.row + sums.row(i, j), column = block.column + sums.column(i, j);
      if (row < operands.p && column < operands.d) f(row * operands.d + column, sums.value[i][j]);
    }
  }
}

/// This thread's part of a block's squared norm; `tile` receives the block where it is kept.
template <class T>
DEVICE double tileBlockNorm(const SegmentOperands& operands, const TileBlock& block, float* tile, T* stages) {
  double squares = 0;
  forElements(operands, block, tileBlock(operands, block, stages), [&](int64_t element, float value) {
    squares += static_cast<double>(value) * static_cast<double>(value);
    if (tile != nullptr) tile[element] = value;
  });
  return squares;
}

template <class T>
DEVICE void tileNormsBody(const TileNormsParams& p, T* stages, double* sums) {
  const SegmentOperands& operands = p.operands;
  const int64_t across = (operands.d + kTileColumns - 1) / kTileColumns;
  const int64_t blocks = (operands.p + kTileRows - 1) / kTileRows * across;
  for (int which = 0; which < 2; ++which) {
    const TileList& list = p.lists[which];
    const int64_t items = *list.count * list.parts;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
      const int64_t number = item / list.parts, part = item % list.parts;
      const UnitRows rows = unitRows(operands.offsets, list.segments[number], operands.rows, operands.wrongOffsets);
      float* tile = nullptr;
      if (which == 0 && number < p.maxTiles) tile = p.tiles + number * operands.p * operands.d;
      double norm = 0;
      for (int64_t b = blocks * part / list.parts; b < blocks * (part + 1) / list.parts; ++b) {
        const TileBlock block{rows, b / across * kTileRows, b % across * kTileColumns};
        // The barrier in blockSum is what lets the next block overwrite the stages.
        norm += blockSum(tileBlockNorm(operands, block, tile, stages), sums);
      }
      if (threadIdx.x == 0) list.partNorms[item] = norm;
    }
  }
}
KERNEL_BOUNDS(tileNorms_float32, TileNormsParams, kNormThreads, 2) {
  SHARED(float, stages, kStages* kStageSize<float>);
  SHARED(double, sums, kNormThreads / kWarp);
  tileNormsBody<float>(p, stages, sums);
}
KERNEL_BOUNDS(tileNorms_bfloat16, TileNormsParams, kNormThreads, 2) {
  SHARED(bfloat16, stages, kStages * kStageSize<bfloat16>);
  SHARED(double, sums, kNormThreads / kWarp);
  tileNormsBody<bfloat16>(p, stages, sums);
}

template <class T>
DEVICE void tilesOfRowsBody(const TilesOfRowsParams& p, T* stages) {
  const SegmentOperands& operands = p.operands;
  const int64_t across = (operands.d + kTileColumns - 1) / kTileColumns;
  const int64_t blocks = (operands.p + kTileRows - 1) / kTileRows * across;
  for (int64_t item = blockIdx.x; item < p.groups * blocks; item += gridDim.x) {
    const int64_t group = item / blocks;
    if (p.groupHasTile[group] == 0) continue;
    TileBlock block{{0, 0}, item % blocks / across * kTileRows, item % blocks % across * kTileColumns};
    TileSums<T> total = {};
    for (int64_t first = 0; first < p.units; first += kWarp) {
      // Every warp looks for itself, and finds the same.
      const int64_t unit = first + threadIdx.x % kWarp;
      float factor = 0;
      if (unit < p.units && p.tileOf[group * p.units + unit] == kTileOfRows) {
        factor = p.factor != nullptr ? p.factor[unit] : 1.0f;
      }
      for (uint32_t found = __ballot_sync(kFullMask, factor != 0.0f); found != 0; found &= found - 1) {
        const int lane = __ffs(static_cast<int>(found)) - 1;
        block.rows = unitRows(operands.offsets, group * p.units + first + lane, operands.rows, operands.wrongOffsets);
        const TileSums<T> tile = tileBlock(operands, block, stages);
        const float scale = __shfl_sync(kFullMask, factor, lane);
        UNROLL
        for (int i = 0; i < 4; ++i) {
          UNROLL
          for (int j = 0; j < 8; ++j) total.value[i][j] = fmaf(scale, tile.value[i][j], total.value[i][j]);
        }
        __syncthreads();  // all have left the stages
      }
    }
    float* gradient = p.gradient + group * operands.p * operands.d;
    forElements(operands, block, total, [&](int64_t element, float value) { gradient[element] += value; });
  }
}
KERNEL_BOUNDS(tilesOfRows_float32, TilesOfRowsParams, kNormThreads, 1) {
  SHARED(float, stages, kStages* kStageSize<float>);
  tilesOfRowsBody<float>(p, stages);
}
KERNEL_BOUNDS(tilesOfRows_bfloat16, TilesOfRowsParams, kNormThreads, 1) {
  SHARED(bfloat16, stages, kStages * kStageSize<bfloat16>);
  tilesOfRowsBody<bfloat16>(p, stages);
}

/// A warp per listed segment.
KERNEL(totalTiles, TileNormsParams) {
  constexpr int kWarps = kNormThreads / kWarp;
  for (const TileList& list : p.lists) {
    const int64_t count = *list.count;
    for (int64_t number = blockIdx.x * kWarps + threadIdx.x / kWarp; number < count; number += gridDim.x * kWarps) {
      double sum = 0;
      for (int64_t part = threadIdx.x % kWarp; part < list.parts; part += kWarp) {
        sum += list.partNorms[number * list.parts + part];
      }
      sum = warpSum(sum);
      if (threadIdx.x % kWarp == 0) p.values[list.segments[number]] = sum;
    }
  }
}

KERNEL(numberSegments, NumberSegmentsParams) {
  SHARED(int32_t, parts, kNumberThreads / kWarp);
  SHARED(int32_t, ownParts, kNumberThreads / kWarp);
  const auto listed = [&](int64_t segment) {
    if (segment >= p.segments) return 0;
    if (p.marks != nullptr) return p.marks[segment];
    const UnitRows rows = unitRows(p.offsets, segment, p.rows, p.wrongOffsets);
    return rows.last - rows.first >= p.fewest ? 1 : 0;
  };
  // Every block counts all that stand before its own: no block waits for another.
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kNumberThreads;
  int32_t before = 0;
  for (int64_t segment = threadIdx.x; segment < first; segment += kNumberThreads) before += listed(segment);
  before = blockSum(before, parts);
  const int64_t segment = first + threadIdx.x;
  const int32_t own = listed(segment);
  const Scan scan = blockScan(own, ownParts);
  const int64_t number = before + scan.before;
  if (own != 0 && number < p.capacity) p.list[number] = static_cast<int32_t>(segment);
  if (p.tileOf != nullptr && segment < p.segments) p.tileOf[segment] = own != 0 ? static_cast<int32_t>(number) : -1;
  if (threadIdx.x > 0 || blockIdx.x + 1 < gridDim.x) return;
  const int64_t count = before + scan.total;
  *p.count = static_cast<int32_t>(count < p.capacity ? count : p.capacity);
  if (p.tileOf != nullptr && count > p.most) report(p.tooMany, count);
}

KERNEL(sumOfSegments, SumOfSegmentsParams) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kNormThreads + threadIdx.x;
  if (unit >= p.units) return;
  double sum = p.normSquared[unit];
  for (int64_t segment = unit; segment < p.segments; segment += p.units) {
    double value = 0;
    for (int64_t part = 0; part < p.parts; ++part) value += p.values[segment * p.parts + part];
    sum += value;
  }
  p.normSquared[unit] = sum;
}

}  // namespace dp_moe::norms
