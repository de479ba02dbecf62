#pragma once

#include "params.h"

namespace dp_moe {

/// Moving and summing whole rows. [begin, end) are rows of y, for pooling units.
struct RowKernels {
  void (*embedding)(const EmbeddingParams&, int64_t begin, int64_t end);
  void (*pool)(const PoolParams&, int64_t begin, int64_t end);
  void (*poolBackward)(const PoolBackwardParams&, int64_t begin, int64_t end);
  void (*gatherRows)(const GatherRowsParams&, int64_t begin, int64_t end);
  void (*combineRows)(const CombineRowsParams&, int64_t begin, int64_t end);
};

}  // namespace dp_moe
