#include "dispatch.h"

#include <cstdlib>
#include <string>

#include "error.h"

namespace dp_moe {

namespace base {
const KernelTable& kernelTable();
}
#if defined(__x86_64__)
namespace avx2 {
const KernelTable& kernelTable();
}
namespace avx512 {
const KernelTable& kernelTable();
}
#endif

std::vector<const KernelTable*> availableKernels() {
  std::vector<const KernelTable*> tables = {&base::kernelTable()};
#if defined(__x86_64__)
  // The table itself is made by code of its instruction set: ask only where the processor can run it.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&avx2::kernelTable());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    tables.push_back(&avx512::kernelTable());
  }
#endif
  return tables;
}

const KernelTable& selectKernels() {
  const std::vector<const KernelTable*> tables = availableKernels();
  const char* asked = std::getenv("DP_MOE_ISA");
  if (asked == nullptr || *asked == '\0') return *tables.back();
  std::string names;
  for (const KernelTable* table : tables) {
    if (table->name == std::string(asked)) return *table;
    names += names.empty() ? table->name : std::string(", ") + table->name;
  }
  throw Error("BACKEND_UNAVAILABLE",
              "Expected an instruction set of this processor (" + names + ") for DP_MOE_ISA, got '" + asked + "'");
}

}  // namespace dp_moe
