#include <algorithm>

#include "cpu_backend.h"
#include "update_checks.h"

namespace dp_moe {

namespace {

constexpr int64_t kGroupsPerTask = 64;
constexpr int64_t kElementsPerTask = kGroupsPerTask * kNormalsPerGroup;

int64_t tasksFor(int64_t size) { return (size + kElementsPerTask - 1) / kElementsPerTask; }

}  // namespace

void CpuBackend::noisySgd(const NoisySgdParams& p) {
  check(p);
  threads_.parallelFor(tasksFor(p.size), [&](int64_t task, int) {
    const int64_t begin = task * kElementsPerTask;
    kernels_.updates.noisySgd(p, begin, std::min(begin + kElementsPerTask, p.size));
  });
}

void CpuBackend::noisyAdam(const NoisyAdamParams& p) {
  check(p);
  threads_.parallelFor(tasksFor(p.size), [&](int64_t task, int) {
    const int64_t begin = task * kElementsPerTask;
    kernels_.updates.noisyAdam(p, begin, std::min(begin + kElementsPerTask, p.size));
  });
}

void CpuBackend::gaussian(const GaussianParams& p) {
  check(p);
  threads_.parallelFor(tasksFor(p.size), [&](int64_t task, int) {
    const int64_t begin = task * kElementsPerTask;
    const int64_t count = std::min(kElementsPerTask, p.size - begin);
    const int64_t element = p.first + begin;
    kernels_.updates.gaussian(p, element / kNormalsPerGroup, element % kNormalsPerGroup, count, p.y.data + begin);
  });
}

}  // namespace dp_moe
