#pragma once

#include <string>

#include "checks.h"
#include "params.h"
#include "random/gaussian.h"

// What every backend checks of an update, all of it on the host.

namespace dp_moe {

template <class P>
void checkStream(const P& p, int64_t end, const char* op) {
  checkSize(p.key, 8, op, "key");
  checkThat(p.step >= 0 && p.step >> 32 == 0, op, "a step in [0, 2^32), got " + std::to_string(p.step));
  checkThat(p.stream >= 0 && p.stream >> 32 == 0, op, "a stream in [0, 2^32), got " + std::to_string(p.stream));
  checkThat(end <= kMaxNormals, op, "at most 2^35 elements in a stream, got " + std::to_string(end));
}

template <class P>
void checkUpdate(const P& p, const char* op) {
  checkThat(p.size >= 0, op, "a size of at least 0, got " + std::to_string(p.size));
  checkSize(p.weight, p.size, op, "weight");
  checkSize(p.gradient, p.size, op, "gradient");
  checkOptionalSize(p.average, p.size, op, "average");
  // Written so that NaN is refused too.
  checkThat(p.noiseDeviation >= 0 && p.noiseDeviation <= 3e38f, op,
            "a finite noiseDeviation of at least 0, got " + std::to_string(p.noiseDeviation));
  checkThat(p.divisor > 0 && p.divisor <= 3e38f, op, "a finite divisor above 0, got " + std::to_string(p.divisor));
  if (p.noiseDeviation > 0) checkStream(p, p.size, op);
}

inline void check(const NoisySgdParams& p) {
  checkUpdate(p, "noisySgd");
  if (p.momentum != 0 || p.velocity.data != nullptr) checkSize(p.velocity, p.size, "noisySgd", "velocity");
}

inline void check(const NoisyAdamParams& p) {
  checkUpdate(p, "noisyAdam");
  checkSize(p.firstMoment, p.size, "noisyAdam", "firstMoment");
  checkSize(p.secondMoment, p.size, "noisyAdam", "secondMoment");
  checkThat(p.correction1 > 0 && p.correction2 > 0, "noisyAdam", "corrections above 0: 1 - beta^t with t from 1");
}

inline void check(const GaussianParams& p) {
  checkThat(p.first >= 0 && p.size >= 0, "gaussian", "first and size of at least 0");
  checkSize(p.y, p.size, "gaussian", "y");
  checkStream(p, p.first + p.size, "gaussian");
}

}  // namespace dp_moe
