#include "../kernels/positions.h"

#include <string>

#include "checks.h"
#include "cuda_backend.h"
#include "row_grids.h"

namespace dp_moe {

void CudaBackend::rotaryEmbedding(const RotaryEmbeddingParams& p) {
  checkThat(
      p.heads > 0 && p.headSize > 0 && p.headSize % 2 == 0, "rotaryEmbedding",
      "heads above 0 and an even headSize, got " + std::to_string(p.heads) + " and " + std::to_string(p.headSize));
  const int64_t half = p.headSize / 2;
  checkSize(p.x, p.rows * p.heads * p.headSize, "rotaryEmbedding", "x");
  checkSize(p.positions, p.rows, "rotaryEmbedding", "positions");
  checkSize(p.inverseFrequency, half, "rotaryEmbedding", "inverseFrequency");
  checkSize(p.y, p.rows * p.heads * p.headSize, "rotaryEmbedding", "y");
  const DType dtype = realType("rotaryEmbedding", {p.x, p.y});
  launcher_.launch(typed("rotaryEmbedding", dtype), {blocksFor(p.rows * half, kRotaryThreads)}, kRotaryThreads,
                   RotaryKernelParams{p.x.data, p.positions.data, p.inverseFrequency.data, p.y.data, p.rows, p.heads,
                                      half, p.inverse});
}

}  // namespace dp_moe
