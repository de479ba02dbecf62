#include "resources.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#include <unistd.h>

namespace dp_moe {

namespace {

std::optional<double> readNumber(std::istream& stream) {
  double value = 0;
  if (stream >> value) return value;
  return std::nullopt;
}

/// Calls read(folder) for the process's own control group and each one above it (version 2), then for the mount point.
template <class F>
void forEachControlGroup(F&& read) {
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (!line.starts_with("0::")) continue;
    for (std::string path = line.substr(3); path.size() > 1; path.resize(path.rfind('/'))) {
      read("/sys/fs/cgroup" + path);
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  read("/sys/fs/cgroup");
}

}  // namespace

int availableThreads() {
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) threads = std::max(1, CPU_COUNT(&set));
#endif
  const auto limit = [&threads](double quota, double period) {
    if (quota > 0 && period > 0) threads = std::min(threads, std::max(1, static_cast<int>(std::ceil(quota / period))));
  };
  forEachControlGroup([&](const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");  // "max 100000" without a quota
    const auto quota = readNumber(file);
    const auto period = quota ? readNumber(file) : std::nullopt;
    if (period) limit(*quota, *period);
  });
  std::ifstream quotaFile("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream periodFile("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  limit(readNumber(quotaFile).value_or(0), readNumber(periodFile).value_or(0));
  return threads;
}

int64_t availableMemory() {
  double bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  const auto limit = [&bytes](const std::string& path) {
    std::ifstream file(path);
    if (const auto value = readNumber(file); value && *value > 0) bytes = std::min(bytes, *value);
  };
  forEachControlGroup([&](const std::string& folder) { limit(folder + "/memory.max"); });
  limit("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  return static_cast<int64_t>(bytes);
}

}  // namespace dp_moe
