#include "kernels/matrix.h"

#include "kernels/matrix_tile.h"

namespace dp_moe::DP_MOE_ISA {

extern const MatrixKernels matrixKernels;
const MatrixKernels matrixKernels = {
    .panelColumns = panelWidth,
    .packWeight = packWeight,
    .packedSize = productPackedSize,
    .productScratch = productScratch,
    .product = product,
    .outerScratch = outerScratch,
    .outer = outer,
    .outerTiles = outerTiles,
    .outerPanels = outerPanels,
    .outerPackedSize = outerPackedSize,
    .packOuter = packOuter,
    .addOuter = addOuter,
    .addTiles = addTiles,
};

}  // namespace dp_moe::DP_MOE_ISA
