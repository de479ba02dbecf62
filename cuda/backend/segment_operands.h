#pragma once

#include "../kernels/norms.h"
#include "row_grids.h"

namespace dp_moe {

/// The rows of an op's segments: those of a weight's gradient, whose norm and whose sum have the same operands.
template <class Params>
SegmentOperands segmentOperands(const Params& p, DType dtype, const Report& wrongOffsets, const Report& wrongRow) {
  return {.dy = p.dy.data,
          .x = p.x.data,
          .xRows = p.xRows.data,
          .offsets = p.segmentOffsets.data,
          .rows = p.rows,
          .p = p.p,
          .d = p.d,
          .xCount = p.x.size / p.d,
          .segments = p.segments,
          .wrongOffsets = wrongOffsets,
          .wrongRow = wrongRow,
          .packedDy = packedRows(p.p, dtype, {p.dy.data}),
          .packedX = packedRows(p.d, dtype, {p.x.data})};
}

}  // namespace dp_moe
