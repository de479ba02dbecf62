#pragma once

#include <cstdint>
#include <vector>

namespace dp_moe {

/// The 53-bit uniform in [0, 1) that decides whether `unit` takes part in `step`.
double samplingUniform(const uint32_t key[8], uint64_t step, uint32_t unit);

/// The units of [0, population) that take part in `step`, rising: unit u does if samplingUniform(key, step, u) < q.
///
/// Guarantee: each unit is drawn on its own with probability ceil(q 2^53) / 2^53, which is q to within 2^-53 and exact
/// for every q that is a multiple of 2^-53; the result depends on (key, step, q) and the unit only, so ranks that share
/// the key agree without talking.
///
/// | q = 0 | nobody |; | q = 1 | everybody |; | population = 0 | nobody |;
/// | q outside [0, 1] or NaN, population outside [0, 2^31), step >= 2^32 | Error INVALID_ARGUMENT |
std::vector<int32_t> poissonSample(const uint32_t key[8], uint64_t step, int64_t population, double q);

}  // namespace dp_moe
