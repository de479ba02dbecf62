#include "columns.h"
#include "embedding_gradients.h"
#include "reductions.h"
#include "unit_rows.h"

namespace dp_moe::embeddings {

constexpr int kWarps = kEmbeddingThreads / kWarp;

DEVICE int64_t positionOfWarp() { return static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; }

/// A thread per sorted position.
KERNEL(findRuns, FindRunsParams) {
  const int64_t position = static_cast<int64_t>(blockIdx.x) * kEmbeddingThreads + threadIdx.x;
  if (position >= p.rows) return;
  const auto unitAt = [&](int64_t i) { return p.byUnit ? p.unitOf[p.rowOf[i]] : 0; };
  const uint32_t key = p.keys[position];
  const int32_t unit = unitAt(position);
  // The first position of (key, unit), or of what follows them.
  const auto bound = [&](bool following) {
    int64_t low = 0, high = p.rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const uint32_t other = p.keys[middle];
      const int32_t otherUnit = other == key ? unitAt(middle) : 0;
      const bool less = other < key || (other == key && (otherUnit < unit || (following && otherUnit == unit)));
      if (less) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return static_cast<int32_t>(low);
  };
  const int32_t ownUnit = p.unitOf[p.rowOf[position]];
  const bool takesPart = ownUnit >= 0 && ownUnit < p.units;
  p.runFirst[position] = takesPart ? bound(false) : 0;
  p.runLast[position] = takesPart ? bound(true) : 0;
}

/// Four columns of a lane.
struct Columns {
  const SumRunsParams& p;
  int64_t first;

  template <class T>
  DEVICE void addRow(int64_t position, double (&sum)[4]) const {
    const auto* row = static_cast<const T*>(p.dy) + p.rowOf[position] * p.d;
    const Pack<float, 4> value = loadColumns<T, 4>(row, first, p.d, p.packed);
    UNROLL
    for (int i = 0; i < 4; ++i) sum[i] += static_cast<double>(value.value[i]);
  }
};

/// What runs are summed for: the gradient, with the units' factors, or norms.
struct Gradient {
  static constexpr bool isNorm = false;

  template <class T>
  DEVICE static void sumChunk(const Columns& columns, int64_t first, int64_t begin, int64_t end, int64_t last,
                              double (&sum)[4]) {
    const SumRunsParams& p = columns.p;
    const auto unitAt = [&](int64_t position) { return p.unitOf[p.rowOf[position]]; };
    int64_t position = begin;
    while (position < end && position > first && unitAt(position) == unitAt(position - 1)) ++position;
    while (position < end) {
      const int32_t unit = unitAt(position);
      const double factor = p.factor == nullptr ? 1.0 : static_cast<double>(p.factor[unit]);
      // In chunks of its own, as its norm.
      double own[4] = {}, chunk[4] = {};
      int32_t inChunk = 0;
      bool ends = false;
      while (!ends) {
        columns.addRow<T>(position, chunk);
        ++position;
        ends = position == last || unitAt(position) != unit;
        if (!ends && ++inChunk < kRunChunk) continue;
        UNROLL
        for (int i = 0; i < 4; ++i) {
          own[i] += chunk[i];
          chunk[i] = 0;
        }
        inChunk = 0;
      }
      UNROLL
      for (int i = 0; i < 4; ++i) sum[i] = fma(factor, own[i], sum[i]);
    }
  }
  DEVICE static void finish(const SumRunsParams& p, int64_t position, int64_t column, const double (&sum)[4]) {
    UNROLL
    for (int i = 0; i < 4; ++i) {
      if (column + i >= p.d) continue;
      float& gradient = p.gradient[p.keys[position] * p.d + column + i];
      gradient = static_cast<float>(static_cast<double>(gradient) + sum[i]);
    }
  }
};
struct Norms {
  static constexpr bool isNorm = true;

  template <class T>
  DEVICE static void sumChunk(const Columns& columns, int64_t, int64_t begin, int64_t end, int64_t, double (&sum)[4]) {
    for (int64_t i = begin; i < end; ++i) columns.addRow<T>(i, sum);
  }
  DEVICE static void finish(const SumRunsParams& p, int64_t position, int64_t, const double (&sum)[4]) {
    double squares = 0;
    UNROLL
    for (int i = 0; i < 4; ++i) squares += sum[i] * sum[i];
    write(p, position, warpSum(squares));
  }
  DEVICE static void write(const SumRunsParams& p, int64_t position, double value) {
    if (threadIdx.x % kWarp == 0) p.norms[static_cast<int64_t>(p.rowOf[position]) * gridDim.y + blockIdx.y] = value;
  }
};

/// Where the sum of the chunk that starts at `position` stands.
DEVICE double* partAt(const SumRunsParams& p, int64_t position, int64_t runFirst) {
  return p.parts + (position / kRunChunk * 2 + (position == runFirst ? 0 : 1)) * p.d;
}

template <class T, class Use>
DEVICE void sumRunsBody(const SumRunsParams& p) {
  const int64_t position = positionOfWarp();
  if (position >= p.rows) return;
  const int64_t first = p.runFirst[position], last = p.runLast[position];
  const bool starts = first < last && (position - first) % kRunChunk == 0;
  if constexpr (Use::isNorm) {
    if (position != first || first == last) Use::write(p, position, 0);
  }
  if (!starts) return;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * kWarp + threadIdx.x % kWarp) * 4;
  const int64_t end = position + kRunChunk < last ? position + kRunChunk : last;
  double sum[4] = {};
  if (column < p.d) Use::template sumChunk<T>(Columns{p, column}, first, position, end, last, sum);
  if (last - first <= kRunChunk) {
    Use::finish(p, position, column, sum);
  } else {
    double* part = partAt(p, position, first);
    UNROLL
    for (int i = 0; i < 4; ++i) {
      if (column + i < p.d) part[column + i] = sum[i];
    }
  }
}
KERNEL(sumGradientRuns_float32, SumRunsParams) { sumRunsBody<float, Gradient>(p); }
KERNEL(sumGradientRuns_bfloat16, SumRunsParams) { sumRunsBody<bfloat16, Gradient>(p); }
KERNEL(sumNormRuns_float32, SumRunsParams) { sumRunsBody<float, Norms>(p); }
KERNEL(sumNormRuns_bfloat16, SumRunsParams) { sumRunsBody<bfloat16, Norms>(p); }

/// The chunks of a run, in order.
template <class Use>
DEVICE void addRunsBody(const SumRunsParams& p) {
  const int64_t position = positionOfWarp();
  if (position >= p.rows) return;
  const int64_t first = p.runFirst[position], last = p.runLast[position];
  if (position != first || last - first <= kRunChunk) return;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * kWarp + threadIdx.x % kWarp) * 4;
  double sum[4] = {};
  for (int64_t chunk = first; chunk < last; chunk += kRunChunk) {
    const double* part = partAt(p, chunk, first);
    UNROLL
    for (int i = 0; i < 4; ++i) sum[i] += column + i < p.d ? part[column + i] : 0.0;
  }
  Use::finish(p, position, column, sum);
}
KERNEL(addGradientRuns, SumRunsParams) { addRunsBody<Gradient>(p); }
KERNEL(addNormRuns, SumRunsParams) { addRunsBody<Norms>(p); }

KERNEL(sumOfRows, SumOfRowsParams) {
  SHARED(double, parts, kEmbeddingThreads / kWarp);
  const UnitRows rows = unitRows(p.offsets, blockIdx.x, p.rows, p.wrongOffsets);
  double sum = 0;
  for (int64_t i = rows.first * p.perRow + threadIdx.x; i < rows.last * p.perRow; i += kEmbeddingThreads) {
    sum += p.norms[i];
  }
  sum = blockSum(sum, parts);
  if (threadIdx.x == 0) p.normSquared[blockIdx.x] += sum;
}

}  // namespace dp_moe::embeddings
