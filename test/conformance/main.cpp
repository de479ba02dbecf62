#include <cstdio>
#include <cstring>

#include "cpu_backend.h"
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

/// One TAP line; true if the test passed.
bool report(int number, const Test& test, const std::string& where, const Context& context) {
  std::string reason;
  try {
    test.run(context);
  } catch (const std::exception& failure) {
    reason = failure.what();
  }
  std::printf("%sok %d - %s [%s]\n", reason.empty() ? "" : "not ", number, test.name, where.c_str());
  if (!reason.empty()) std::printf("  ---\n  message: \"%s\"\n  ...\n", reason.c_str());
  std::fflush(stdout);
  return reason.empty();
}

}  // namespace

Registration::Registration(const char* name, TestFunction test) { tests().push_back({name, test}); }

/// Runs the tests whose name contains `filter`; the number of failures.
int runAll(const char* filter) {
  int number = 0;
  int failures = 0;
  for (const KernelTable* kernels : availableKernels()) {
    std::map<std::string, std::vector<uint8_t>> seen;
    for (int threads = 1; threads <= 3; ++threads) {
      HostMemory memory;
      ThreadPool pool(threads);
      CpuBackend backend(pool, *kernels);
      const Context context(backend, memory, kernels->name, seen);
      const std::string where = std::string(kernels->name) + ", threads " + std::to_string(threads);
      for (const Test& test : tests()) {
        if (std::strstr(test.name, filter) == nullptr) continue;
        if (!report(++number, test, where, context)) ++failures;
      }
    }
  }
  std::printf("1..%d\n", number);
  return failures;
}

}  // namespace dp_moe::conformance

/// dp-moe-conformance [FILTER]
int main(int argc, char** argv) { return dp_moe::conformance::runAll(argc > 1 ? argv[1] : "") == 0 ? 0 : 1; }
