#include <algorithm>
#include <string>

#include "checks.h"
#include "cpu_backend.h"
#include "random/gaussian.h"

namespace dp_moe {

namespace {

constexpr int64_t kGroupsPerTask = 64;
constexpr int64_t kElementsPerTask = kGroupsPerTask * kNormalsPerGroup;
constexpr int64_t kKeyWords = 8;

int64_t tasksFor(int64_t size) { return (size + kElementsPerTask - 1) / kElementsPerTask; }

template <class P>
void checkStream(const P& p, int64_t end, const char* op) {
  checkSize(p.key, kKeyWords, op, "key");
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

}  // namespace

void CpuBackend::noisySgd(const NoisySgdParams& p) {
  checkUpdate(p, "noisySgd");
  if (p.momentum != 0 || p.velocity.data != nullptr) checkSize(p.velocity, p.size, "noisySgd", "velocity");
  threads_.parallelFor(tasksFor(p.size), [&](int64_t task, int) {
    const int64_t begin = task * kElementsPerTask;
    kernels_.updates.noisySgd(p, begin, std::min(begin + kElementsPerTask, p.size));
  });
}

void CpuBackend::noisyAdam(const NoisyAdamParams& p) {
  checkUpdate(p, "noisyAdam");
  checkSize(p.firstMoment, p.size, "noisyAdam", "firstMoment");
  checkSize(p.secondMoment, p.size, "noisyAdam", "secondMoment");
  checkThat(p.correction1 > 0 && p.correction2 > 0, "noisyAdam", "corrections above 0: 1 - beta^t with t from 1");
  threads_.parallelFor(tasksFor(p.size), [&](int64_t task, int) {
    const int64_t begin = task * kElementsPerTask;
    kernels_.updates.noisyAdam(p, begin, std::min(begin + kElementsPerTask, p.size));
  });
}

void CpuBackend::gaussian(const GaussianParams& p) {
  checkThat(p.first >= 0 && p.size >= 0, "gaussian", "first and size of at least 0");
  checkSize(p.y, p.size, "gaussian", "y");
  checkStream(p, p.first + p.size, "gaussian");
  threads_.parallelFor(tasksFor(p.size), [&](int64_t task, int) {
    const int64_t begin = task * kElementsPerTask;
    const int64_t count = std::min(kElementsPerTask, p.size - begin);
    const int64_t element = p.first + begin;
    kernels_.updates.gaussian(p, element / kNormalsPerGroup, element % kNormalsPerGroup, count, p.y.data + begin);
  });
}

}  // namespace dp_moe
