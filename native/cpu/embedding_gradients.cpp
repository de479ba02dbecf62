#include <algorithm>
#include <bit>
#include <vector>

#include "cpu_backend.h"
#include "norm_checks.h"
#include "ranges.h"

namespace dp_moe {

namespace {

constexpr int64_t kTaskWork = 1 << 14;  // elements of dy that make a task worth handing out
constexpr int64_t kTiedRows = 64;       // embedding rows per task of the cross term

/// Links the rows of one unit that share an id, in row order, through a hash table of the ids seen.
class IdChains {
 public:
  static int64_t scratchSize(int64_t rows) { return 2 * rows + tableSize(rows); }

  IdChains(const int32_t* ids, int64_t rows, int32_t* scratch) : next_(scratch), last_(scratch + rows) {
    int32_t* table = scratch + 2 * rows;
    const int64_t size = tableSize(rows);
    const int shift = 64 - std::countr_zero(static_cast<uint64_t>(size));
    std::fill_n(table, size, -1);
    for (int32_t row = 0; row < rows; ++row) {
      next_[row] = -1;
      uint64_t slot = (static_cast<uint64_t>(static_cast<uint32_t>(ids[row])) * 0x9e3779b97f4a7c15u) >> shift;
      while (table[slot] >= 0 && ids[table[slot]] != ids[row]) slot = (slot + 1) & static_cast<uint64_t>(size - 1);
      const int32_t head = table[slot];
      if (head < 0) {
        table[slot] = row;
        last_[row] = row;
      } else {
        next_[last_[head]] = row;
        last_[head] = row;
        last_[row] = -1;
      }
    }
  }

  bool isHead(int64_t row) const { return last_[row] >= 0; }
  const int32_t* next() const { return next_; }

 private:
  static int64_t tableSize(int64_t rows) {
    return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(2 * rows, 2))));
  }

  int32_t* next_;
  int32_t* last_;  // of a chain's first row: its last row; of the others: -1
};

double unitNorm(const EmbeddingGradientNormsParams& p, const NormKernels& kernels, int64_t unit, Scratch& scratch) {
  const int64_t first = p.segmentOffsets.data[unit];
  const int64_t rows = p.segmentOffsets.data[unit + 1] - first;
  const IdChains chains(p.ids.data + first, rows, scratch.take<int32_t>(IdChains::scratchSize(rows)));
  double sum = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (chains.isHead(row)) {
      sum += kernels.chainNorm(p.dy.data + first * p.d, chains.next(), static_cast<int32_t>(row), p.d);
    }
  }
  return sum;
}

/// Runs of units with about `work` rows each.
std::vector<int64_t> unitRuns(const Input<int32_t>& offsets, int64_t units, int64_t rows) {
  std::vector<int64_t> begin = {0};
  for (int64_t unit = 1; unit <= units; ++unit) {
    if (unit == units || offsets.data[unit] - offsets.data[begin.back()] >= rows) begin.push_back(unit);
  }
  return begin;
}

/// The rows of units whose factor is not 0, by id, those of an id in their order, and the sums that they make: one for
/// each id of each unit.
struct SumsById {
  explicit SumsById(const EmbeddingGradientParams& p) : begin(static_cast<size_t>(p.vocabulary) + 1) {
    std::vector<int64_t> next(begin.size());
    forKeptRows(p, [&](int64_t row, int64_t) { ++next[idOf(p, row) + 1]; });
    for (size_t id = 0; id + 1 < next.size(); ++id) next[id + 1] += next[id];
    rows.resize(static_cast<size_t>(next.back()));
    std::vector<int64_t> unitOf(rows.size());
    std::vector<int64_t> end = next;
    forKeptRows(p, [&](int64_t row, int64_t unit) {
      const auto at = static_cast<size_t>(end[idOf(p, row)]++);
      rows[at] = row;
      unitOf[at] = unit;
    });
    for (size_t id = 0; id + 1 < begin.size(); ++id) {
      for (int64_t at = next[id]; at < next[id + 1]; ++at) {
        const int64_t unit = unitOf[static_cast<size_t>(at)];
        const bool same = at > next[id] && unitOf[static_cast<size_t>(at - 1)] == unit;
        if (!same) sums.push_back({at, at, p.factor.data == nullptr ? 1.0f : p.factor.data[unit]});
        sums.back().end = at + 1;
      }
      begin[id + 1] = static_cast<int64_t>(sums.size());
    }
  }

  /// First id of part `part` of `parts` of about as many sums each.
  int64_t firstId(int64_t part, int64_t parts) const {
    if (part == parts) return static_cast<int64_t>(begin.size()) - 1;
    return std::lower_bound(begin.begin(), begin.end() - 1, begin.back() * part / parts) - begin.begin();
  }

  std::vector<int64_t> begin;  // of each id's sums [vocabulary + 1]
  std::vector<RowSum> sums;    // of places in `rows`
  std::vector<int64_t> rows;

 private:
  static size_t idOf(const EmbeddingGradientParams& p, int64_t row) { return static_cast<size_t>(p.ids.data[row]); }

  template <class F>
  static void forKeptRows(const EmbeddingGradientParams& p, F&& f) {
    for (int64_t unit = 0; unit < p.units; ++unit) {
      if (p.factor.data != nullptr && p.factor.data[unit] == 0.0f) continue;
      for (int64_t row = p.segmentOffsets.data[unit]; row < p.segmentOffsets.data[unit + 1]; ++row) f(row, unit);
    }
  }
};

}  // namespace

void CpuBackend::embeddingGradientNorms(const EmbeddingGradientNormsParams& p) {
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.units, p.rows, "embeddingGradientNorms", "segmentOffsets");
  if (p.units == 0) return;
  const std::vector<int64_t> runs = unitRuns(p.segmentOffsets, p.units, std::max<int64_t>(1, kTaskWork / (p.d + 16)));
  threads_.parallelFor(static_cast<int64_t>(runs.size()) - 1, [&](int64_t task, int thread) {
    for (int64_t unit = runs[static_cast<size_t>(task)]; unit < runs[static_cast<size_t>(task) + 1]; ++unit) {
      p.normSquared.data[unit] += unitNorm(p, kernels_.norms, unit, threadScratch_[static_cast<size_t>(thread)]);
    }
  });
}

void CpuBackend::embeddingGradient(const EmbeddingGradientParams& p) {
  constexpr const char* op = "embeddingGradient";
  checkSizes(p);
  checkOffsets(p.segmentOffsets, p.units, p.rows, op, "segmentOffsets");
  checkIndices(p.ids, p.segmentOffsets.data[p.units], 0, p.vocabulary, op, "ids");

  constexpr int64_t columns = 64;
  const SumsById byId(p);
  const int64_t blocks = (p.d + columns - 1) / columns;
  const int64_t parts = threads_.threads() == 1 ? 1 : int64_t{4} * threads_.threads();
  threads_.parallelFor(parts * blocks, [&](int64_t task, int) {
    const int64_t first = task % blocks * columns;
    const int64_t endId = byId.firstId(task / blocks + 1, parts);
    for (int64_t id = byId.firstId(task / blocks, parts); id < endId; ++id) {
      const int64_t sum = byId.begin[static_cast<size_t>(id)], end = byId.begin[static_cast<size_t>(id) + 1];
      if (sum == end) continue;
      kernels_.norms.addRowSums(p.gradient.data + id * p.d + first, p.dy.data + first, byId.rows.data(),
                                byId.sums.data() + sum, end - sum, std::min(columns, p.d - first), p.d);
    }
  });
}

void CpuBackend::tiedEmbeddingNorms(const TiedEmbeddingNormsParams& p) {
  constexpr const char* op = "tiedEmbeddingNorms";
  checkSizes(p);
  const int64_t embeddingRows = p.dEmbedding.size / p.d, headRows = p.x.size / p.d;
  checkOffsets(p.embeddingOffsets, p.units, embeddingRows, op, "embeddingOffsets");
  checkOffsets(p.headOffsets, p.units, headRows, op, "headOffsets");
  checkIndices(p.ids, p.embeddingOffsets.data[p.units], 0, p.vocabulary, op, "ids");

  struct Part {
    int64_t unit;
    int64_t first;
    int64_t rows;
    BoundedSum sum;
  };
  std::vector<Part> parts;
  for (int64_t unit = 0; unit < p.units; ++unit) {
    const int64_t end = p.embeddingOffsets.data[unit + 1];
    for (int64_t row = p.embeddingOffsets.data[unit]; row < end; row += kTiedRows) {
      parts.push_back({unit, row, std::min(kTiedRows, end - row), {}});
    }
  }
  threads_.parallelFor(static_cast<int64_t>(parts.size()), [&](int64_t task, int thread) {
    Part& part = parts[static_cast<size_t>(task)];
    const int64_t head = p.headOffsets.data[part.unit];
    const TiedRows rows{
        .dEmbedding = p.dEmbedding.data + part.first * p.d,
        .ids = p.ids.data + part.first,
        .dLogits = p.dLogits.data + head * p.vocabulary,
        .x = p.x.data + head * p.d,
        .embeddingRows = part.rows,
        .headRows = p.headOffsets.data[part.unit + 1] - head,
        .d = p.d,
        .vocabulary = p.vocabulary,
    };
    part.sum = kernels_.norms.tiedCross(rows, threadScratch_[static_cast<size_t>(thread)].take<double>(rows.headRows));
  });
  for (const Part& part : parts) p.normSquared.data[part.unit] += 2 * (part.sum.value + part.sum.bound);
}

}  // namespace dp_moe
