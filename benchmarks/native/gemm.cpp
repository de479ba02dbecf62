#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu_backend.h"
#include "dispatch.h"
#include "memory.h"

// Matrix products of the CPU backend and of OpenBLAS, side by side:
//
//     dp-moe-gemm [--op NAME] [--isa NAME] [--threads N] [--m N] [--seconds S] [--rest MS]
//
// forward:         y [m, n] = x [m, k] W [n, k]'       inputGradient: y [m, n] = x [m, k] W [k, n]
// weightGradient:  W [n, k] += y [m, n]' x [m, k], of units of 16 rows
// experts...:      the same for 8 experts of about m rows each; the forward product gathers its rows, while OpenBLAS is
//                  called once per expert and given rows that are gathered already.
//
// Ours is called as training calls it: weights are packed in every call. The two take turns, and a case is given S
// seconds in all (default 0.3). With one thread, time is the thread's processor time, which other processes hardly
// change; with more it is wall-clock time, and every turn follows a rest (default 40 ms), in which OpenBLAS's helpers,
// which spin for 2^26 cycles after a call, go to sleep, and after which a busy machine lets threads run for a while.
// One line of JSON per case, with the speeds of the fastest sample of each, their ratio, and the ratio of the medians.

namespace {

using namespace dp_moe;

constexpr int64_t kExperts = 8;
constexpr int64_t kUnitRows = 16;
constexpr double kTurn = 2e-3;
constexpr double kSample = 5e-5;  // shorter calls are timed several together

struct Case {
  std::string op;
  int64_t m;
  int64_t k;
  int64_t n;
};

struct Options {
  std::string op;
  std::string isa;
  int threads = 0;
  int64_t m = 0;
  double seconds = 0.3;
  int rest = 40;
};

/// fp32 memory as the engine gives it.
class Matrix {
 public:
  explicit Matrix(int64_t count) : count_(count), data_(static_cast<float*>(memory_.reserve(count * 4))) {
    if (data_ == nullptr) std::abort();
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  ~Matrix() { memory_.release(data_, count_ * 4); }
  void randomize(uint32_t seed) {
    std::minstd_rand random(seed + 1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < count_; ++i) data_[i] = uniform(random);
  }
  void clear() { std::fill_n(data_, count_, 0.0f); }
  float* data() const { return data_; }
  int64_t size() const { return count_; }

 private:
  HostMemory memory_;
  int64_t count_;
  float* data_;
};

double secondsOf(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// One of the two contestants.
struct Contestant {
  std::function<void()> call;
  clockid_t clock;
  int callsPerSample = 1;
  std::vector<double> times;  // seconds per call

  double sample() {
    const double start = secondsOf(clock);
    for (int i = 0; i < callsPerSample; ++i) call();
    return (secondsOf(clock) - start) / callsPerSample;
  }

  void takeTurn() {
    const double end = secondsOf(clock) + kTurn;
    do {
      times.push_back(sample());
      if (times.back() * callsPerSample < kSample) callsPerSample *= 2;
    } while (secondsOf(clock) < end);
  }
};

double median(std::vector<double>& times) {
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

bool isExperts(const Case& c) { return c.op.starts_with("experts"); }
bool isGradient(const Case& c) { return c.op == "weightGradient" || c.op == "expertsWeightGradient"; }
bool isForward(const Case& c) { return c.op == "forward" || c.op == "expertsForward"; }

/// First rows of the groups: experts get 0.6 to 1.4 times the average.
std::vector<int32_t> groupBounds(const Case& c) {
  std::vector<int32_t> bounds = {0};
  const int64_t groups = isExperts(c) ? kExperts : 1;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t skew = isExperts(c) ? c.m * (2 * (g * 3 % kExperts) - (kExperts - 1)) / 20 : 0;
    bounds.push_back(bounds.back() + static_cast<int32_t>(c.m + skew));
  }
  return bounds;
}

/// One case's operands and the two ways to compute it.
class Run {
 public:
  Run(const Case& c, Backend& backend)
      : case_(c),
        backend_(backend),
        bounds_(groupBounds(c)),
        groups_(static_cast<int64_t>(bounds_.size()) - 1),
        rows_(bounds_.back()),
        x_(rows_ * c.k),
        gathered_(rows_ * c.k),
        weight_(groups_ * c.n * c.k),
        y_(rows_ * c.n),
        result_(isGradient(c) ? weight_.size() : y_.size()),
        expected_(result_.size()) {
    x_.randomize(1);
    weight_.randomize(2);
    y_.randomize(3);
    std::vector<int32_t> order(static_cast<size_t>(rows_));
    for (int32_t i = 0; i < static_cast<int32_t>(rows_); ++i) order[static_cast<size_t>(i)] = i;
    if (c.op == "expertsForward") {
      std::shuffle(order.begin(), order.end(), std::minstd_rand(4));
      xRows_ = order;
    }
    for (size_t i = 0; i < order.size(); ++i) {
      std::copy_n(x_.data() + order[i] * c.k, c.k, gathered_.data() + static_cast<int64_t>(i) * c.k);
    }
    // Segments, expert-major: every expert has rows of every unit.
    units_ = std::max<int64_t>(1, rows_ / groups_ / kUnitRows);
    for (int64_t g = 0; g < groups_; ++g) {
      for (int64_t u = 0; u < units_; ++u) {
        const int64_t rows = bounds_[static_cast<size_t>(g) + 1] - bounds_[static_cast<size_t>(g)];
        segments_.push_back(bounds_[static_cast<size_t>(g)] + static_cast<int32_t>(rows * u / units_));
      }
    }
    segments_.push_back(bounds_.back());
  }

  double flops() const { return 2.0 * static_cast<double>(rows_ * case_.n * case_.k); }

  void ours() { isGradient(case_) ? oursGradient() : oursProduct(); }

  void openblas() {
    const blasint n = static_cast<blasint>(case_.n), k = static_cast<blasint>(case_.k);
    for (int64_t g = 0; g < groups_; ++g) {
      const int64_t first = bounds_[static_cast<size_t>(g)];
      const auto m = static_cast<blasint>(bounds_[static_cast<size_t>(g) + 1] - first);
      const float* x = gathered_.data() + first * k;
      const float* weight = weight_.data() + g * n * k;
      if (isGradient(case_)) {
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, n, k, m, 1, y_.data() + first * n, n, x, k, 1,
                    expected_.data() + g * n * k, k);
      } else if (isForward(case_)) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x, k, weight, k, 0,
                    expected_.data() + first * n, n);
      } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, x, k, weight, n, 0,
                    expected_.data() + first * n, n);
      }
    }
  }

  /// Ends the program where the two differ by more than rounding.
  void compare() {
    result_.clear();
    expected_.clear();
    ours();
    openblas();
    const double terms = static_cast<double>(isGradient(case_) ? case_.m : case_.k);
    for (int64_t i = 0; i < result_.size(); ++i) {
      if (std::abs(result_.data()[i] - expected_.data()[i]) < 1e-5 * terms) continue;
      std::fprintf(stderr, "%s %ld x %ld x %ld: element %ld is %g, OpenBLAS has %g\n", case_.op.c_str(),
                   static_cast<long>(case_.m), static_cast<long>(case_.k), static_cast<long>(case_.n),
                   static_cast<long>(i), static_cast<double>(result_.data()[i]),
                   static_cast<double>(expected_.data()[i]));
      std::exit(1);
    }
  }

 private:
  void oursProduct() {
    backend_.matrixMultiply({
        .x = {x_.data(), x_.size()},
        .xRows = {xRows_.empty() ? nullptr : xRows_.data(), static_cast<int64_t>(xRows_.size())},
        .rowScale = {},
        .weight = {weight_.data(), weight_.size()},
        .bias = {},
        .groupOffsets = {segments_.data(), static_cast<int64_t>(segments_.size())},
        .y = {result_.data(), result_.size()},
        .preActivation = {},
        .rows = rows_,
        .k = case_.k,
        .n = case_.n,
        .groups = groups_,
        .groupStride = units_,
        .transposed = isForward(case_),
        .accumulate = false,
        .activation = Activation::none,
    });
  }

  void oursGradient() {
    backend_.weightGradient({
        .dy = {y_.data(), y_.size()},
        .x = {x_.data(), x_.size()},
        .xRows = {},
        .segmentOffsets = {segments_.data(), static_cast<int64_t>(segments_.size())},
        .factor = {},
        .tileOf = {},
        .tiles = {},
        .gradient = {result_.data(), result_.size()},
        .rows = rows_,
        .p = case_.n,
        .d = case_.k,
        .segments = groups_ * units_,
        .units = units_,
    });
  }

  Case case_;
  Backend& backend_;
  std::vector<int32_t> bounds_;
  int64_t groups_;
  int64_t rows_;
  Matrix x_;
  Matrix gathered_;  // the rows of x_ in the groups' order
  Matrix weight_;
  Matrix y_;  // the output's gradient, of a weight gradient
  Matrix result_;
  Matrix expected_;
  std::vector<int32_t> xRows_;
  std::vector<int32_t> segments_;
  int64_t units_ = 1;
};

void measure(const Case& c, const KernelTable& kernels, int threads, const Options& options) {
  ThreadPool pool(threads);
  CpuBackend backend(pool, kernels);
  openblas_set_num_threads(threads);
  Run run(c, backend);
  run.compare();
  const clockid_t clock = threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  Contestant ours{[&] { run.ours(); }, clock, 1, {}};
  Contestant openblas{[&] { run.openblas(); }, clock, 1, {}};
  const double end = secondsOf(CLOCK_MONOTONIC) + options.seconds;
  do {
    for (Contestant* contestant : {&ours, &openblas}) {
      if (threads > 1) std::this_thread::sleep_for(std::chrono::milliseconds(options.rest));
      contestant->takeTurn();
    }
  } while (secondsOf(CLOCK_MONOTONIC) < end);
  const double oursLeast = *std::min_element(ours.times.begin(), ours.times.end());
  const double openblasLeast = *std::min_element(openblas.times.begin(), openblas.times.end());
  std::printf(
      "{\"op\":\"%s\",\"m\":%ld,\"k\":%ld,\"n\":%ld,\"threads\":%d,\"instructionSet\":\"%s\",\"oursGflops\":%.1f,"
      "\"openblasGflops\":%.1f,\"ratio\":%.3f,\"medianRatio\":%.3f}\n",
      c.op.c_str(), static_cast<long>(c.m), static_cast<long>(c.k), static_cast<long>(c.n), threads, kernels.name,
      run.flops() / oursLeast * 1e-9, run.flops() / openblasLeast * 1e-9, openblasLeast / oursLeast,
      median(openblas.times) / median(ours.times));
  std::fflush(stdout);
}

std::vector<Case> allCases() {
  std::vector<Case> cases;
  for (const char* op : {"forward", "inputGradient", "weightGradient"}) {
    for (const int64_t m : {16, 64, 256, 1024, 4096}) {
      for (const int64_t k : {128, 512}) {
        for (const int64_t n : {128, 512}) cases.push_back({op, m, k, n});
      }
    }
    cases.push_back({op, 2048, 2048, 2048});
  }
  for (const char* op : {"expertsForward", "expertsInputGradient", "expertsWeightGradient"}) {
    for (const int64_t m : {32, 80, 160, 640}) {
      for (const int64_t k : {128, 512}) cases.push_back({op, m, k, 640 - k});
    }
  }
  return cases;
}

Options parse(int count, char** words) {
  Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = words[i];
    if (name == "--op") options.op = words[i + 1];
    if (name == "--isa") options.isa = words[i + 1];
    if (name == "--threads") options.threads = std::atoi(words[i + 1]);
    if (name == "--m") options.m = std::atoll(words[i + 1]);
    if (name == "--rest") options.rest = std::atoi(words[i + 1]);
    if (name == "--seconds") options.seconds = std::atof(words[i + 1]);
  }
  return options;
}

}  // namespace

int main(int count, char** words) {
  const Options options = parse(count, words);
  std::fprintf(stderr, "%s\n", openblas_get_config());
  for (const KernelTable* kernels : availableKernels()) {
    if (std::strcmp(kernels->name, "base") == 0 && options.isa != "base") continue;
    if (!options.isa.empty() && options.isa != kernels->name) continue;
    for (const int threads : {1, 2}) {
      if (options.threads != 0 && options.threads != threads) continue;
      for (const Case& c : allCases()) {
        if (!options.op.empty() && options.op != c.op) continue;
        if (options.m != 0 && options.m != c.m) continue;
        measure(c, *kernels, threads, options);
      }
    }
  }
}
