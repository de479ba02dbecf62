#pragma once

#include <cmath>
#include <string>

#include "checks.h"
#include "params.h"

// What every backend checks of the ops on gradients without reading an operand: sizes and numbers.

namespace dp_moe {

inline void checkSegments(int64_t segments, int64_t units, bool widths, const char* op, const char* sizes) {
  checkThat(widths && units > 0 && segments % units == 0, op,
            std::string(sizes) + " and units to be at least 1 and segments to be a multiple of units");
}

inline void checkSizes(const SegmentGradientNormsParams& p) {
  constexpr const char* op = "segmentGradientNorms";
  checkSegments(p.segments, p.units, p.p > 0 && p.d > 0, op, "p, d");
  checkSize(p.dy, p.rows * p.p, op, "dy");
  checkSize(p.segmentOffsets, p.segments + 1, op, "segmentOffsets");
  checkSize(p.normSquared, p.units, op, "normSquared");
  if (p.xRows.data != nullptr) {
    checkColumns(p.x, p.d, op, "x");
    checkSize(p.xRows, p.rows, op, "xRows");
  } else {
    checkSize(p.x, p.rows * p.d, op, "x");
  }
  if (p.tileOf.data == nullptr) return;
  checkSize(p.tileOf, p.segments, op, "tileOf");
  checkThat(p.tiles.size >= p.maxTiles * p.p * p.d, op,
            "tiles to hold maxTiles (" + std::to_string(p.maxTiles) + ") tiles of p x d");
}

inline Error tooManyTiles(int64_t maxTiles, int64_t count) {
  return Error("INVALID_ARGUMENT", "segmentGradientNorms: expected at most maxTiles = " + std::to_string(maxTiles) +
                                       " segments of n rows with n^2 >= 20 d p / (d + p), got " +
                                       std::to_string(count));
}

inline void checkSizes(const SegmentBiasNormsParams& p) {
  constexpr const char* op = "segmentBiasNorms";
  checkSegments(p.segments, p.units, p.p > 0, op, "p");
  checkSize(p.dy, p.rows * p.p, op, "dy");
  checkSize(p.segmentOffsets, p.segments + 1, op, "segmentOffsets");
  checkSize(p.normSquared, p.units, op, "normSquared");
}

inline void checkSizes(const BiasGradientParams& p) {
  constexpr const char* op = "biasGradient";
  checkSegments(p.segments, p.units, p.p > 0, op, "p");
  checkSize(p.dy, p.rows * p.p, op, "dy");
  checkSize(p.segmentOffsets, p.segments + 1, op, "segmentOffsets");
  checkOptionalSize(p.factor, p.units, op, "factor");
  checkSize(p.gradient, p.segments / p.units * p.p, op, "gradient");
}

inline void checkSizes(const EmbeddingGradientNormsParams& p) {
  constexpr const char* op = "embeddingGradientNorms";
  checkThat(p.d > 0, op, "d to be at least 1");
  checkSize(p.dy, p.rows * p.d, op, "dy");
  checkSize(p.ids, p.rows, op, "ids");
  checkSize(p.segmentOffsets, p.units + 1, op, "segmentOffsets");
  checkSize(p.normSquared, p.units, op, "normSquared");
}

inline void checkSizes(const EmbeddingGradientParams& p) {
  constexpr const char* op = "embeddingGradient";
  checkThat(p.d > 0, op, "d to be at least 1");
  checkSize(p.dy, p.rows * p.d, op, "dy");
  checkSize(p.ids, p.rows, op, "ids");
  checkSize(p.segmentOffsets, p.units + 1, op, "segmentOffsets");
  checkOptionalSize(p.factor, p.units, op, "factor");
  checkSize(p.gradient, p.vocabulary * p.d, op, "gradient");
}

inline void checkSizes(const TiedEmbeddingNormsParams& p) {
  constexpr const char* op = "tiedEmbeddingNorms";
  checkThat(p.d > 0 && p.vocabulary > 0, op, "d and vocabulary to be at least 1");
  checkColumns(p.dEmbedding, p.d, op, "dEmbedding");
  checkColumns(p.x, p.d, op, "x");
  checkSize(p.ids, p.dEmbedding.size / p.d, op, "ids");
  checkSize(p.dLogits, p.x.size / p.d * p.vocabulary, op, "dLogits");
  checkSize(p.embeddingOffsets, p.units + 1, op, "embeddingOffsets");
  checkSize(p.headOffsets, p.units + 1, op, "headOffsets");
  checkSize(p.normSquared, p.units, op, "normSquared");
}

inline void checkSizes(const ClipFactorsParams& p) {
  constexpr const char* op = "clipFactors";
  checkThat(p.mode == 0 || p.mode == 1, op, "mode 0 (flat) or 1 (automatic), got " + std::to_string(p.mode));
  checkSize(p.normSquared, p.groups * p.units, op, "normSquared");
  checkSize(p.bounds, p.groups, op, "bounds");
  checkSize(p.factor, p.groups * p.units, op, "factor");
  checkSize(p.statistics, p.groups * 3, op, "statistics");
  checkThat(p.mode == 0 || (std::isfinite(p.stability) && p.stability > 0), op,
            "a finite stability above 0, got " + std::to_string(p.stability));
}

}  // namespace dp_moe
