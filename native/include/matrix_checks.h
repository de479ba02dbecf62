#pragma once

#include "norm_checks.h"

// What every backend checks of matrix products without reading an operand.

namespace dp_moe {

inline void checkSizes(const MatrixMultiplyParams& p) {
  constexpr const char* op = "matrixMultiply";
  checkThat(p.k > 0 && p.n > 0 && p.groups > 0, op, "k, n and groups to be at least 1");
  checkColumns(p.x, p.k, op, "x");
  checkSize(p.weight, p.groups * p.n * p.k, op, "weight");
  checkSize(p.y, p.rows * p.n, op, "y");
  checkOptionalSize(p.rowScale, p.rows, op, "rowScale");
  checkOptionalSize(p.bias, p.groups * p.n, op, "bias");
  checkOptionalSize(p.preActivation, p.rows * p.n, op, "preActivation");
  if (p.groupOffsets.data != nullptr) {
    checkSize(p.groupOffsets, p.groups * p.groupStride + 1, op, "groupOffsets");
  } else {
    checkThat(p.groups == 1, op, "groupOffsets where there are several groups");
  }
  if (p.xRows.data != nullptr) {
    checkSize(p.xRows, p.rows, op, "xRows");
  } else {
    checkSize(p.x, p.rows * p.k, op, "x");
  }
}

inline void checkSizes(const WeightGradientParams& p) {
  constexpr const char* op = "weightGradient";
  checkSegments(p.segments, p.units, p.p > 0 && p.d > 0, op, "p, d");
  checkSize(p.dy, p.rows * p.p, op, "dy");
  checkSize(p.segmentOffsets, p.segments + 1, op, "segmentOffsets");
  checkOptionalSize(p.factor, p.units, op, "factor");
  checkSize(p.gradient, p.segments / p.units * p.p * p.d, op, "gradient");
  if (p.xRows.data != nullptr) {
    checkColumns(p.x, p.d, op, "x");
    checkSize(p.xRows, p.rows, op, "xRows");
  } else {
    checkSize(p.x, p.rows * p.d, op, "x");
  }
  if (p.tileOf.data == nullptr) return;
  checkSize(p.tileOf, p.segments, op, "tileOf");
  checkColumns(p.tiles, p.p * p.d, op, "tiles");
}

}  // namespace dp_moe
