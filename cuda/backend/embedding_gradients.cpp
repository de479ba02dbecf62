#include "../kernels/embedding_gradients.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "../kernels/norms.h"
#include "../kernels/row_sort.h"
#include "checks.h"
#include "cuda_backend.h"
#include "norm_checks.h"
#include "row_grids.h"

namespace dp_moe {

namespace {

constexpr int64_t kWarpsPerBlock = kEmbeddingThreads / 32;

struct SortedRows {
  const uint32_t* keys;
  const int32_t* rowOf;
  const int32_t* unitOf;
};

/// Launches the sort of the rows by id in scratch slots 0 and 1.
SortedRows sortRows(Launcher& launcher, SortKeysParams params) {
  const int64_t rows = params.rows, blocks = blocksFor(rows, kSortRows);
  auto* memory = launcher.scratch<int32_t>(0, 5 * rows);
  auto* counts = launcher.scratch<int32_t>(1, kDigits * blocks);
  auto* keys = reinterpret_cast<uint32_t*>(memory);
  uint32_t* otherKeys = keys + rows;
  int32_t* rowOf = memory + 2 * rows;
  int32_t* otherRows = memory + 3 * rows;
  params.keys = keys;
  params.rowOf = rowOf;
  params.unitOf = memory + 4 * rows;
  launcher.launch("sortKeys", {blocksFor(std::max(rows, params.units), kSortThreads)}, kSortThreads, params);
  if (rows == 0) return {keys, rowOf, params.unitOf};
  for (int shift = 0; shift < static_cast<int>(std::bit_width(params.last)); shift += 8) {
    const SortPassParams pass{keys, rowOf, otherKeys, otherRows, counts, rows, blocks, shift};
    launcher.launch("countDigits", {static_cast<uint32_t>(blocks)}, kSortThreads, pass);
    launcher.launch("placeDigits", {1}, kPlaceThreads, pass);
    launcher.launch("moveRows", {static_cast<uint32_t>(blocks)}, kSortThreads, pass);
    std::swap(keys, otherKeys);
    std::swap(rowOf, otherRows);
  }
  return {keys, rowOf, params.unitOf};
}

/// Sorts, finds the runs and sums them, for norms or for the gradient, whose part of `sums` is set.
void sumRuns(Launcher& launcher, const SortKeysParams& sort, SumRunsParams sums, DType dtype) {
  const bool forNorms = sums.norms != nullptr;
  const SortedRows sorted = sortRows(launcher, sort);
  const int64_t rows = sort.rows, stretches = blocksFor(rows, kRunChunk);
  auto* runs = launcher.scratch<int32_t>(2, 2 * rows);
  sums.rowOf = sorted.rowOf;
  sums.unitOf = sorted.unitOf;
  sums.runFirst = runs;
  sums.runLast = runs + rows;
  sums.factor = sort.factor;
  sums.parts = launcher.scratch<double>(3, 2 * stretches * sums.d);
  sums.keys = sorted.keys;
  sums.rows = rows;
  sums.packed = packedRows(sums.d, dtype, {sums.dy});
  launcher.launch(
      "findRuns", {blocksFor(rows, kEmbeddingThreads)}, kEmbeddingThreads,
      FindRunsParams{sorted.keys, sorted.rowOf, sorted.unitOf, runs, runs + rows, rows, sort.units, forNorms});
  const Dim grid{blocksFor(rows, kWarpsPerBlock), blocksFor(sums.d, kEmbeddingColumns)};
  launcher.launch(typed(forNorms ? "sumNormRuns" : "sumGradientRuns", dtype), grid, kEmbeddingThreads, sums);
  if (rows > kRunChunk) launcher.launch(forNorms ? "addNormRuns" : "addGradientRuns", grid, kEmbeddingThreads, sums);
}

/// The norms of the rows of x [*, d], in scratch.
const double* rowNorms(Launcher& launcher, int slot, const RealInput& x, int64_t d) {
  const int64_t rows = x.size / d;
  auto* norms = launcher.scratch<double>(slot, rows);
  launcher.launch(typed("rowNorms", x.dtype), {blocksFor(rows, kWarpsPerBlock)}, kEmbeddingThreads,
                  RowNormsParams{x.data, norms, rows, d, packedRows(d, x.dtype, {x.data})});
  return norms;
}

}  // namespace

void CudaBackend::embeddingGradientNorms(const EmbeddingGradientNormsParams& p) {
  checkSizes(p);
  const Report wrongOffsets = offsetsReport(launcher_, "embeddingGradientNorms", "segmentOffsets", p.rows);
  const int64_t perRow = blocksFor(p.d, kEmbeddingColumns);
  SortKeysParams sort{};
  sort.ids = p.ids.data;
  sort.offsets = p.segmentOffsets.data;
  sort.rows = p.rows;
  sort.units = p.units;
  sort.last = UINT32_MAX;
  sort.wrongOffsets = wrongOffsets;
  SumRunsParams sums{};
  sums.dy = p.dy.data;
  sums.norms = launcher_.scratch<double>(4, p.rows * perRow);
  sums.d = p.d;
  sumRuns(launcher_, sort, sums, p.dy.dtype);
  launcher_.launch(
      "sumOfRows", {static_cast<uint32_t>(p.units)}, kEmbeddingThreads,
      SumOfRowsParams{sums.norms, p.segmentOffsets.data, p.normSquared.data, p.rows, perRow, wrongOffsets});
}

void CudaBackend::embeddingGradient(const EmbeddingGradientParams& p) {
  checkSizes(p);
  constexpr const char* op = "embeddingGradient";
  SortKeysParams sort{};
  sort.ids = p.ids.data;
  sort.offsets = p.segmentOffsets.data;
  sort.factor = p.factor.data;
  sort.rows = p.rows;
  sort.units = p.units;
  sort.vocabulary = p.vocabulary;
  sort.last = static_cast<uint32_t>(p.vocabulary);
  sort.wrongOffsets = offsetsReport(launcher_, op, "segmentOffsets", p.rows);
  sort.wrongId = indexReport(launcher_, op, "ids", 0, p.vocabulary);
  SumRunsParams sums{};
  sums.dy = p.dy.data;
  sums.gradient = p.gradient.data;
  sums.d = p.d;
  sumRuns(launcher_, sort, sums, p.dy.dtype);
}

void CudaBackend::tiedEmbeddingNorms(const TiedEmbeddingNormsParams& p) {
  checkSizes(p);
  constexpr const char* op = "tiedEmbeddingNorms";
  const DType dtype = realType(op, {p.dEmbedding, p.dLogits, p.x});
  const int64_t embeddingRows = p.dEmbedding.size / p.d, headRows = p.x.size / p.d;
  const double* embeddingNorms = rowNorms(launcher_, 0, p.dEmbedding, p.d);
  const double* headNorms = rowNorms(launcher_, 1, p.x, p.d);
  auto* values = launcher_.scratch<double>(2, p.units * kTiedParts);
  const TiedNormsParams params{.dEmbedding = p.dEmbedding.data,
                               .ids = p.ids.data,
                               .embeddingOffsets = p.embeddingOffsets.data,
                               .dLogits = p.dLogits.data,
                               .x = p.x.data,
                               .headOffsets = p.headOffsets.data,
                               .embeddingNorms = embeddingNorms,
                               .headNorms = headNorms,
                               .values = values,
                               .embeddingRows = embeddingRows,
                               .headRows = headRows,
                               .d = p.d,
                               .vocabulary = p.vocabulary,
                               .wrongEmbeddingOffsets = offsetsReport(launcher_, op, "embeddingOffsets", embeddingRows),
                               .wrongHeadOffsets = offsetsReport(launcher_, op, "headOffsets", headRows),
                               .wrongId = indexReport(launcher_, op, "ids", 0, p.vocabulary),
                               .packed = packedRows(p.d, dtype, {p.dEmbedding.data, p.x.data})};
  launcher_.launch(typed("tiedNorms", dtype), {static_cast<uint32_t>(p.units), kTiedParts}, kTiedThreads, params);
  launcher_.launch("sumOfSegments", {blocksFor(p.units, kNormThreads)}, kNormThreads,
                   SumOfSegmentsParams{values, p.normSquared.data, p.units, p.units, kTiedParts});
}

}  // namespace dp_moe
