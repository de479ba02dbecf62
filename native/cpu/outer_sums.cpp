#include "outer_sums.h"

#include <algorithm>

namespace dp_moe {

namespace {

constexpr int64_t kPartRows = 128;
constexpr int64_t kPartColumns = 256;
constexpr int64_t kFewestInPart = 32;
constexpr int64_t kPackColumns = 128;
constexpr int64_t kPassFloats = int64_t{1} << 19;  // 2 MiB of copies at a time, for several threads,
constexpr int64_t kCacheFloats = 1 << 17;          // and what stays in the second-level cache of one
constexpr int64_t kSerialWork = 1 << 19;           // multiply-adds below which waking threads costs more

/// The tiles and panels of a block in parts of about even size.
struct Grid {
  int64_t tiles;
  int64_t panels;
  int64_t down;
  int64_t across;

  int64_t parts() const { return down * across; }
  OuterPart part(int64_t index) const {
    const int64_t i = index / across, j = index % across;
    return {tiles * i / down, tiles * (i + 1) / down, panels * j / across, panels * (j + 1) / across};
  }
};

int64_t pieces(int64_t size, int64_t most) { return (size + most - 1) / most; }

}  // namespace

OuterSums::OuterSums(const MatrixKernels& kernels, ThreadPool& threads, Scratch& scratch, int64_t p, int64_t d)
    : kernels_(kernels), threads_(threads), scratch_(scratch), p_(p), d_(d) {}

void OuterSums::add(const OuterBlock& block) {
  const int64_t most = threads_.threads() > 1 ? kPassFloats : kCacheFloats;
  for (int64_t first = 0; first < block.rows; first += outerChunkRows) {
    const int64_t depth = std::min(outerChunkRows, block.rows - first);
    const int64_t floats = kernels_.outerPackedSize(depth, p_, d_);
    if (floats_ > 0 && floats_ + floats > most) finish();
    const auto chunk = static_cast<int64_t>(chunks_.size());
    if (first == 0 || groups_.empty()) groups_.push_back({block, chunk, chunk});
    chunks_.push_back({groups_.size() - 1, {first, depth, nullptr}});
    ++groups_.back().endChunk;
    floats_ += floats;
    rows_ += depth;
  }
}

template <class F>
void OuterSums::share(int64_t tasks, F&& task) {
  if (rows_ * p_ * d_ >= kSerialWork) return threads_.parallelFor(tasks, [&](int64_t i, int) { task(i); });
  for (int64_t i = 0; i < tasks; ++i) task(i);
}

/// Some tiles, or some panels, of a chunk: the first pieces are of tiles.
void OuterSums::pack(const Chunk& chunk, int64_t piece) const {
  const int64_t tiles = kernels_.outerTiles(p_), panels = kernels_.outerPanels(d_);
  const int64_t down = pieces(p_, kPackColumns), across = pieces(d_, kPackColumns);
  OuterPart part{};
  if (piece < down) {
    part = {tiles * piece / down, tiles * (piece + 1) / down, 0, 0};
  } else {
    part = {0, 0, panels * (piece - down) / across, panels * (piece - down + 1) / across};
  }
  kernels_.packOuter(groups_[chunk.group].block, chunk.rows, part);
}

void OuterSums::finish() {
  float* packed = scratch_.take<float>(floats_);
  for (Chunk& chunk : chunks_) {
    chunk.rows.packed = packed;
    packed += kernels_.outerPackedSize(chunk.rows.depth, p_, d_);
  }
  const int64_t packPieces = pieces(p_, kPackColumns) + pieces(d_, kPackColumns);
  share(static_cast<int64_t>(chunks_.size()) * packPieces,
        [&](int64_t task) { pack(chunks_[static_cast<size_t>(task / packPieces)], task % packPieces); });

  const auto groups = static_cast<int64_t>(groups_.size());
  Grid grid{kernels_.outerTiles(p_), kernels_.outerPanels(d_), pieces(p_, kPartRows), pieces(d_, kPartColumns)};
  while (threads_.threads() > 1 && groups * grid.parts() < int64_t{4} * threads_.threads()) {
    const int64_t rows = p_ / grid.down, columns = d_ / grid.across;
    if (std::max(rows, columns) <= kFewestInPart) break;
    (columns >= rows ? grid.across : grid.down) *= 2;
  }
  share(groups * grid.parts(), [&](int64_t task) {
    const Group& group = groups_[static_cast<size_t>(task / grid.parts())];
    const OuterPart part = grid.part(task % grid.parts());
    for (int64_t i = group.firstChunk; i < group.endChunk; ++i) {
      kernels_.addOuter(group.block, chunks_[static_cast<size_t>(i)].rows, part);
    }
  });
  groups_.clear();
  chunks_.clear();
  floats_ = 0;
  rows_ = 0;
}

}  // namespace dp_moe
