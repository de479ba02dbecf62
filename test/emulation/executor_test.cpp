#include "emulation/executor.h"

#include <cmath>
#include <cstdio>
#include <functional>
#include <vector>

// What the emulated device does, right and wrong, with small kernels made for it.

namespace dp_moe {

namespace {

using emulation::Executor;
using emulation::Fault;

struct SumParams {
  const float* x;
  float* sum;
  int32_t* status;
  int count;
};

/// The sum of all x by shuffles and shared memory. `barrier`: whether the warps wait for each other.
template <bool barrier>
DEVICE void sumBody(const SumParams& p) {
  SHARED(float, partial, 8);
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.count; i += static_cast<int>(blockDim.x)) sum += p.x[i];
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(kFullMask, sum, distance);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  if (barrier) __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (uint32_t warp = 0; warp < blockDim.x / 32; ++warp) total += partial[warp];
    p.sum[blockIdx.x] = total;
  }
}

KERNEL(test_sum, SumParams) { sumBody<true>(p); }
KERNEL(test_sum_without_barrier, SumParams) { sumBody<false>(p); }

KERNEL(test_divergent, SumParams) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else if (p.count > 0) {
    __syncwarp();
  }
}

KERNEL(test_early_end, SumParams) {
  if (threadIdx.x == 3) return;
  __syncthreads();
  p.sum[0] = 1;
}

KERNEL(test_partial_shuffle, SumParams) {
  if (threadIdx.x < 16) p.sum[threadIdx.x] = __shfl_sync(kFullMask, p.x[threadIdx.x], 0);
}

KERNEL(test_report, SumParams) { reportError(p.status, 7, static_cast<int32_t>(threadIdx.x)); }

struct CopyParams {
  const float* x;
  float* y;
  int count;
};

/// y = x through shared memory. `wait`: how many groups may be under way when it is read.
template <int wait>
DEVICE void copyBody(const CopyParams& p) {
  DYNAMIC_SHARED(float, buffer);
  const int thread = static_cast<int>(threadIdx.x);
  const int bytes = max(0, min(16, (p.count - 4 * thread) * 4));
  copyAsync16(buffer + 4 * thread, p.x + (bytes > 0 ? 4 * thread : 0), bytes);
  commitAsync();
  waitAsync<wait>();
  __syncthreads();
  const int other = (thread + 33) % static_cast<int>(blockDim.x);
  for (int i = 0; i < 4; ++i) p.y[4 * other + i] = buffer[4 * other + i];
}

KERNEL(test_copy, CopyParams) { copyBody<0>(p); }
KERNEL(test_copy_not_waited_for, CopyParams) { copyBody<1>(p); }

struct ProductParams {
  const bfloat16* a;  // [16, 16]
  const bfloat16* b;  // [16, 8]
  float* c;           // [16, 8]
};

/// One warp: a through loadMatrix4, b through loadMatrix4Transposed.
KERNEL_BOUNDS(test_product, ProductParams, 32, 1) {
  SHARED(bfloat16, a, 256);
  SHARED(bfloat16, b, 256);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) a[i] = p.a[i];
  for (int i = lane; i < 256; i += 32) b[i] = i % 16 < 8 ? p.b[i / 16 * 8 + i % 16] : bfloat16{0};
  __syncwarp();
  uint32_t left[4];
  uint32_t right[4];
  loadMatrix4(left, a + (lane % 16) * 16 + lane / 16 * 8);
  loadMatrix4Transposed(right, b + (lane % 16) * 16 + lane / 16 * 8);
  float c[4] = {0, 0, 0, 0};
  const uint32_t columns[2] = {right[0], right[1]};
  multiplyAccumulate(c, left, columns);
  for (int i = 0; i < 4; ++i) p.c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = c[i];
}

template <class Params>
void run(const char* name, emulation::Grid grid, uint32_t threads, const Params& params, size_t shared = 0,
         uint64_t seed = 1) {
  const emulation::Kernel* kernel = emulation::findKernel(name);
  if (kernel == nullptr) throw Fault(std::string("no kernel ") + name);
  Executor::ofThisThread().run(*kernel, grid, threads, &params, shared, seed);
}

int failures = 0;
int number = 0;

void report(bool ok, const std::string& what) {
  std::printf("%sok %d - %s\n", ok ? "" : "not ", ++number, what.c_str());
  if (!ok) ++failures;
}

void expectFault(const std::string& part, const std::function<void()>& call, const std::string& what) {
  std::string message = "(none)";
  try {
    call();
  } catch (const Fault& fault) {
    message = fault.what();
  }
  const bool ok = message.find(part) != std::string::npos;
  report(ok, what);
  if (!ok) std::printf("  # expected a fault with '%s', got: %s\n", part.c_str(), message.c_str());
}

void testSums() {
  std::vector<float> x(1000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  float expected = 0;
  for (const float value : x) expected += value;
  int wrong = 0;
  int wrongWithoutBarrier = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<float> sums(3);
    run("test_sum", {3, 1}, 256, SumParams{x.data(), sums.data(), nullptr, 1000}, 0, seed);
    for (const float sum : sums) wrong += sum == expected ? 0 : 1;
    run("test_sum_without_barrier", {3, 1}, 256, SumParams{x.data(), sums.data(), nullptr, 1000}, 0, seed);
    for (const float sum : sums) wrongWithoutBarrier += sum == expected ? 0 : 1;
  }
  report(wrong == 0, "shuffles, shared memory and barriers");
  report(wrongWithoutBarrier > 20, "a missing barrier gives a wrong result");
}

void testFaults() {
  std::vector<float> x(64, 1.0f);
  std::vector<float> sums(64);
  int32_t status[2] = {0, 0};
  const SumParams params{x.data(), sums.data(), status, 64};
  expectFault(
      "threads 0-39 wait at __syncthreads (executor_test.cpp:", [&] { run("test_divergent", {}, 64, params); },
      "a divergent barrier names threads and places");
  expectFault(
      "threads 3 have ended", [&] { run("test_early_end", {}, 64, params); },
      "a thread that has ended is missed at a barrier");
  expectFault(
      "wait at __shfl_sync", [&] { run("test_partial_shuffle", {}, 32, params); }, "lanes that a shuffle misses");
  expectFault("at most 32", [&] { run("test_product", {}, 64, ProductParams{}); }, "more threads than the bounds");
  expectFault("not whole warps", [&] { run("test_sum", {}, 40, params); }, "blocks that are not whole warps");
  run("test_sum", {}, 64, params);
  report(sums[0] == 64, "kernels run after a fault");
  run("test_report", {}, 64, params);
  report(status[0] == 7 && status[1] >= 0 && status[1] < 64, "a reported error");
}

void testCopies() {
  std::vector<float> x(512);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) + 1;
  std::vector<float> y(512);
  run("test_copy", {}, 128, CopyParams{x.data(), y.data(), 509}, 2048);
  bool right = true;
  for (size_t i = 0; i < 512; ++i) right = right && y[i] == (i < 509 ? x[i] : 0);
  report(right, "asynchronous copies, zeros past their end");
  run("test_copy_not_waited_for", {}, 128, CopyParams{x.data(), y.data(), 509}, 2048);
  report(std::isnan(y[0]) && std::isnan(y[511]), "a copy that was not waited for is NaN");
  expectFault(
      "not in shared memory", [&] { run("test_copy", {}, 128, CopyParams{x.data(), y.data(), 509}, 1024); },
      "a copy past the end of shared memory");
  expectFault(
      "not a multiple of 16", [&] { run("test_copy", {}, 96, CopyParams{x.data() + 1, y.data(), 99}, 2048); },
      "a copy from an address that is not aligned");
}

/// The detector on its own: kernels that tell it of their accesses are compiled another way.
void testRaces() {
  emulation::RaceDetector::watches = true;
  emulation::RaceDetector races;
  const auto found = [&](const std::function<void()>& accesses) {
    races.startLaunch();
    races.startBlock();
    accesses();
    return races.found();
  };
  const auto is = [&](const char* expected, const std::string& text, const char* what) {
    report(*expected == '\0' ? text.empty() : text.find(expected) != std::string::npos, what);
  };

  std::vector<emulation::RaceDetector::Cell> cells;
  const auto read = [&](uint32_t thread) { races.readShared(cells.data() + 2, 2, thread, nullptr); };
  const auto write = [&](uint32_t thread) { races.writeShared(cells.data() + 2, 2, thread, nullptr); };
  const auto shared = [&](const char* expected, const std::function<void()>& accesses, const char* what) {
    cells.assign(8, {});
    is(expected, found(accesses), what);
  };
  shared("thread 40 reads what is written by thread 3", [&] { write(3), read(40); }, "a read after a write");
  shared("thread 4 reads what is written by thread 3", [&] { write(3), read(4); }, "within a warp");
  shared("writes what is read by", [&] { read(3), read(40), write(3); }, "a write after reads, one its own");
  shared("writes what is read by", [&] { read(3), read(4), write(3); }, "the same within a warp");
  shared("writes what is written by", [&] { write(3), write(4); }, "two writes");
  shared("reads", [&] { write(3), races.passWarpBarrier(0), read(40); }, "a barrier of one warp is not for others");
  shared("", [&] { write(3), read(3), write(3); }, "a thread with itself");
  shared("", [&] { write(3), races.passBlockBarrier(), read(40), races.passBlockBarrier(), write(5); }, "barriers");
  shared("", [&] { write(3), races.passWarpBarrier(0), read(4), races.passWarpBarrier(0), write(5); }, "of a warp");
  shared("", [&] { write(3), races.writeShared(&cells[4], 2, 40, nullptr); }, "neighbours");
  shared("", [&] { write(3), races.startBlock(), write(40); }, "shared memory of another block");

  float memory[4] = {};
  const auto readGlobal = [&](uint32_t thread) { races.readGlobal(&memory[1], 4, thread, nullptr); };
  const auto writeGlobal = [&](uint32_t thread) { races.writeGlobal(&memory[1], 4, thread, nullptr); };
  is("of another block", found([&] { writeGlobal(3), races.startBlock(), readGlobal(3); }), "blocks are not ordered");
  is("of another block", found([&] { writeGlobal(3), races.startBlock(), writeGlobal(3); }), "nor when both write");
  is("reads what is written by", found([&] { writeGlobal(3), readGlobal(4); }), "global memory within a block");
  is("", found([&] { writeGlobal(3), races.passBlockBarrier(), readGlobal(4); }), "and with a barrier");
  is("", found([&] { writeGlobal(3), races.readGlobal(&memory[2], 4, 4, nullptr); }), "neighbours in global memory");
  emulation::RaceDetector::watches = false;
}

void testProduct() {
  std::vector<bfloat16> a(256);
  std::vector<bfloat16> b(128);
  for (size_t i = 0; i < a.size(); ++i) a[i] = toBfloat16(static_cast<float>(i * i % 31) - 15);
  for (size_t i = 0; i < b.size(); ++i) b[i] = toBfloat16(static_cast<float>(i * 5 % 29) / 4);
  std::vector<float> c(128);
  run("test_product", {}, 32, ProductParams{a.data(), b.data(), c.data()});
  bool right = true;
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k) sum += toFloat(a[row * 16 + k]) * toFloat(b[k * 8 + column]);
      right = right && c[row * 8 + column] == sum;
    }
  }
  report(right, "loadMatrix4, loadMatrix4Transposed and multiplyAccumulate");
}

}  // namespace

}  // namespace dp_moe

int main() {
  dp_moe::testSums();
  dp_moe::testFaults();
  dp_moe::testCopies();
  dp_moe::testProduct();
  dp_moe::testRaces();
  std::printf("1..%d\n", dp_moe::number);
  return dp_moe::failures == 0 ? 0 : 1;
}
