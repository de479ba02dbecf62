#include "random/gaussian.h"

#include <cmath>
#include <numbers>
#include <utility>

namespace dp_moe {

double gaussianReference(const uint32_t key[8], uint32_t step, uint32_t stream, int64_t index) {
  const int64_t group = index / kNormalsPerGroup;
  const auto counter = static_cast<uint32_t>(group * kBlocksPerGroup + index % kBlocksPerGroup);
  uint32_t words[16];
  chachaBlock(key, {counter, purposeWord(RandomPurpose::noise, 0), step, stream}, words);

  const int64_t value = index % kNormalsPerGroup / kBlocksPerGroup;
  const uint32_t* w = words + value / 2 * 4;
  const double u = (std::ldexp(w[1], 21) + static_cast<double>((w[0] >> 11) + 1)) / std::ldexp(1.0, 53);
  const double r = std::ldexp(w[3] & 0x3fffffff, -30) + std::ldexp(w[2] >> 9, -53) - 0.5;
  const double radius = std::sqrt(-2 * std::log(u));
  double x = radius * std::cos(std::numbers::pi / 2 * r);
  double y = radius * std::sin(std::numbers::pi / 2 * r);
  if ((w[3] & 0x40000000) != 0) std::swap(x, y);
  const double z = value % 2 == 0 ? x : y;
  return (w[3] & 0x80000000) != 0 ? -z : z;
}

}  // namespace dp_moe
