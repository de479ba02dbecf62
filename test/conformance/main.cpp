#include <charconv>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "cpu_backend.h"
#include "cuda_runs.h"
#include "dispatch.h"
#include "harness.h"

namespace dp_moe::conformance {

namespace {

struct Test {
  const char* name;
  TestFunction run;
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

/// What the command line asks for.
struct Choice {
  std::string backend = "cpu";
  std::string filter;               // tests whose name contains it
  std::vector<int> seeds{1, 2, 3};  // of an emulated device's schedules
  size_t part = 1;                  // of `parts`: every parts-th test, for processes side by side
  size_t parts = 1;
};

/// What the backends but the CPU open.
const std::map<std::string, std::string> drivers = {
    {"cuda", ""},
    {"emulated", "libdp-moe-emulated-cuda.so"},
    {"races", "libdp-moe-emulated-races.so"},
};

/// Runs the chosen tests on one backend after another and counts.
class Suite {
 public:
  explicit Suite(const Choice& choice) : choice_(choice) {}

  void run(const Run& run) {
    size_t index = 0;
    for (const Test& test : tests()) {
      if (std::strstr(test.name, choice_.filter.c_str()) == nullptr) continue;
      if (index++ % choice_.parts + 1 == choice_.part) runTest(test, run);
    }
  }

  /// The closing lines; the program's exit status.
  int finish() const {
    std::printf("1..%d\n", number_);
    if (number_ == 0) std::printf("# no test is named like '%s'\n", choice_.filter.c_str());
    return failures_ == 0 && number_ > 0 ? 0 : 1;
  }

 private:
  const Choice& choice_;
  int number_ = 0;
  int failures_ = 0;

  void runTest(const Test& test, const Run& run) {
    std::string reason;
    try {
      test.run(run.context);
      run.finish();
    } catch (const Error& error) {
      reason = error.code() + ": " + error.what();
    } catch (const std::exception& failure) {
      reason = failure.what();
    }
    std::printf("%sok %d - %s [%s]\n", reason.empty() ? "" : "not ", ++number_, test.name, run.name.c_str());
    if (!reason.empty()) {
      std::printf("  ---\n  message: \"%s\"\n  ...\n", reason.c_str());
      ++failures_;
      run.recover();
    }
    std::fflush(stdout);
  }
};

void runOnCpu(Suite& suite) {
  for (const KernelTable* kernels : availableKernels()) {
    std::map<std::string, std::vector<uint8_t>> seen;
    for (int threads = 1; threads <= 3; ++threads) {
      HostMemory memory;
      ThreadPool pool(threads);
      CpuBackend backend(pool, *kernels);
      const Context context(backend, memory, Traits{kernels->name}, seen);
      suite.run({std::string(kernels->name) + ", threads " + std::to_string(threads), context, [] {}, [] {}});
    }
  }
}

template <class Number>
Number numberOf(std::string_view text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < 1) {
    throw std::invalid_argument("Expected a number above 0, got '" + std::string(text) + "'");
  }
  return number;
}

Choice choiceOf(const std::vector<std::string>& arguments) {
  Choice choice;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.empty() || argument[0] != '-') {
      choice.filter = argument;
      continue;
    }
    if (i + 1 == arguments.size()) throw std::invalid_argument("Expected a value after " + argument);
    const std::string& value = arguments[++i];
    if (argument == "--backend" && (value == "cpu" || drivers.contains(value))) {
      choice.backend = value;
    } else if (argument == "--only") {
      choice.filter = value;
    } else if (argument == "--seed") {
      choice.seeds = {numberOf<int>(value)};
    } else if (argument == "--part" && value.find('/') != std::string::npos) {
      const size_t slash = value.find('/');
      choice.part = numberOf<size_t>(std::string_view(value).substr(0, slash));
      choice.parts = numberOf<size_t>(std::string_view(value).substr(slash + 1));
    } else {
      throw std::invalid_argument(
          "Expected --backend cpu|cuda|emulated|races, --only NAME, --seed N or --part K/N, got " + argument + " " +
          value);
    }
  }
  return choice;
}

}  // namespace

Registration::Registration(const char* name, TestFunction test) { tests().push_back({name, test}); }

int runAll(const std::vector<std::string>& arguments) {
  const Choice choice = choiceOf(arguments);
  Suite suite(choice);
  if (choice.backend == "cpu") {
    runOnCpu(suite);
  } else {
    runOnCuda(drivers.at(choice.backend), choice.seeds, [&](const Run& run) { suite.run(run); });
  }
  return suite.finish();
}

}  // namespace dp_moe::conformance

/// dp-moe-conformance [--backend cpu|cuda|emulated|races] [--only NAME] [--seed N] [--part K/N]
int main(int argc, char** argv) {
  try {
    return dp_moe::conformance::runAll({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dp-moe-conformance: %s\n", error.what());
    return 2;
  }
}
