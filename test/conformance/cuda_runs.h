#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness.h"

namespace dp_moe::conformance {

/// One run of the suite: what tests run on, and what is to be done after each.
struct Run {
  std::string name;
  const Context& context;
  std::function<void()> finish;   // throws what failed in the background
  std::function<void()> recover;  // after a failed test: makes the backend usable again
};

/// Calls `suite` for a CUDA device, once for each schedule. `driver` is the library of an emulated one beside this
/// program; where it is empty, the device is what the system's driver gives (or DP_MOE_CUDA_DRIVER).
void runOnCuda(const std::string& driver, const std::vector<int>& seeds, const std::function<void(const Run&)>& suite);

}  // namespace dp_moe::conformance
