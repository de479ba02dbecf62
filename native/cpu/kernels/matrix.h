#pragma once

#include "kernels/matrix_kernels.h"

namespace dp_moe::DP_MOE_ISA {

void product(const ProductBlock&);
int64_t productScratch(int64_t rows, int64_t columns);
int64_t productPackedSize(int64_t k, int64_t columns);
void packWeight(const float* weight, int64_t k, int64_t n, bool transposed, int64_t first, int64_t columns,
                float* packed);

void outer(const OuterBlock&);
int64_t outerScratch(int64_t p, int64_t d);
int64_t outerTiles(int64_t p);
int64_t outerPanels(int64_t d);
int64_t outerPackedSize(int64_t depth, int64_t p, int64_t d);
void packOuter(const OuterBlock&, const OuterChunk&, const OuterPart&);
void addOuter(const OuterBlock&, const OuterChunk&, const OuterPart&);
void addTiles(float* c, const float* const* tiles, const float* scale, int64_t count, int64_t p, int64_t d,
              int64_t cStride);

}  // namespace dp_moe::DP_MOE_ISA
