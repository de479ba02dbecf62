#pragma once

#include <cstdint>

#include "random/chacha.h"

// Standard normals of the noise, as the reference that every backend's kernels are tested against.
//
// Normals come in groups of 128 = 16 blocks of 8. Element i of a stream is number i % 128 of group i / 128; there
// block 16 * (i / 128) + i % 16 gives words w, and with v = i % 128 / 16, pair p = v / 2:
//
//   u = (w[4p + 1] * 2^21 + (w[4p] >> 11) + 1) / 2^53                  in (0, 1], never 0
//   r = (w[4p + 3] mod 2^30) / 2^30 + (w[4p + 2] >> 9) / 2^53 - 1/2    in [-1/2, 1/2)
//   (x, y) = sqrt(-2 ln u) (cos(pi r / 2), sin(pi r / 2)), exchanged if bit 30 of w[4p + 3] is set, negated if bit 31
//   is z = x if v is even, else y
//
// which is Box-Muller with 53 bits under the radius, so |z| <= sqrt(106 ln 2) = 8.5717, and 55 under the angle. So an
// element is the same in whatever range, thread or shard it is drawn. The vector kernels use no fused multiply-add
// here: their doubles are the same bits on every instruction set, within 2 ulp of the formula.

namespace dp_moe {

constexpr int64_t kNormalsPerGroup = 128;
constexpr int64_t kBlocksPerGroup = 16;
constexpr int64_t kMaxNormals = (INT64_C(1) << 32) / kBlocksPerGroup * kNormalsPerGroup;

/// Element `index` of the stream by the formula above, with the C library's log, sqrt, sin and cos.
double gaussianReference(const uint32_t key[8], uint32_t step, uint32_t stream, int64_t index);

}  // namespace dp_moe
