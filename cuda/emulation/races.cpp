#include "races.h"

#include <dlfcn.h>

#include <cstdio>
#include <memory>

namespace dp_moe::emulation {

namespace {

constexpr size_t kFirstCells = 1 << 16;

/// The source line of code in this library, when addr2line and debug information are there.
std::string lineOf(const void* code) {
  Dl_info info;
  if (dladdr(code, &info) == 0 || info.dli_fname == nullptr) return "?";
  char command[600];
  const auto offset = reinterpret_cast<uintptr_t>(code) - reinterpret_cast<uintptr_t>(info.dli_fbase) - 1;
  std::snprintf(command, sizeof command, "addr2line -sie '%s' 0x%zx 2>&1", info.dli_fname, static_cast<size_t>(offset));
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command, "r"), pclose);
  std::string text;
  char part[200];
  while (pipe && std::fgets(part, sizeof part, pipe.get()) != nullptr) {
    const std::string line(part);
    if (!text.empty()) text += " in ";
    text += line.substr(0, line.find_first_of(" \n"));
  }
  return text;
}

}  // namespace

void RaceDetector::startLaunch() {
  if (watches && cells_.empty()) cells_.resize(kFirstCells);
  ++launch_;
  used_ = 0;
  block_ = interval_ = 0;
  found_.clear();
}

RaceDetector::Cell& RaceDetector::cellOf(uintptr_t place) {
  if (used_ * 2 > cells_.size()) grow();
  size_t index = place * 0x9e3779b97f4a7c15 >> 20 & (cells_.size() - 1);
  for (;; index = (index + 1) & (cells_.size() - 1)) {
    Cell& cell = cells_[index];
    if (cell.launch != launch_) {
      ++used_;
      return cell = {place, launch_, {}, {}};
    }
    if (cell.place == place) return cell;
  }
}

void RaceDetector::grow() {
  std::vector<Cell> before(cells_.size() * 4);
  before.swap(cells_);
  used_ = 0;
  for (const Cell& cell : before) {
    if (cell.launch == launch_) cellOf(cell.place) = cell;
  }
}

RaceDetector::Access RaceDetector::now(uint32_t thread, const void* code) const {
  return {block_, interval_, warpIntervals_[thread / 32], static_cast<uint16_t>(thread), false, false, code};
}

bool RaceDetector::isOrdered(const Access& earlier, const Access& later) const {
  if (earlier.interval == 0) return true;
  if (earlier.block != later.block) return false;
  if (earlier.interval != later.interval) return true;
  if (earlier.byOthers) return false;
  if (earlier.thread / 32 != later.thread / 32) return false;
  if (earlier.warpInterval != later.warpInterval) return true;
  return earlier.thread == later.thread && !earlier.byWarp;
}

void RaceDetector::report(const char* what, const Access& earlier, const Access& later) {
  if (!found_.empty()) return;
  found_ = std::string("race: thread ") + std::to_string(later.thread) +
           (earlier.block == later.block ? "" : " of another block") + " " + what + " thread " +
           std::to_string(earlier.thread) + " (" + lineOf(later.code) + " after " + lineOf(earlier.code) +
           ") with no barrier between";
}

void RaceDetector::read(const void* address, size_t bytes, uint32_t thread, const void* code) {
  const auto first = reinterpret_cast<uintptr_t>(address) / 2;
  const auto last = (reinterpret_cast<uintptr_t>(address) + bytes - 1) / 2;
  const Access access = now(thread, code);
  for (uintptr_t place = first; place <= last; ++place) {
    Cell& cell = cellOf(place);
    if (!isOrdered(cell.write, access)) report("reads what is written by", cell.write, access);
    Access& before = cell.read;
    const bool sameInterval = before.interval == access.interval;
    const bool sameWarp = before.thread / 32 == thread / 32;
    if (!sameInterval || (sameWarp && !before.byOthers && before.warpInterval != access.warpInterval)) {
      // Readers of other blocks stay known: no barrier orders them with a later write.
      if (before.interval == 0 || before.block == access.block) before = access;
    } else if (before.thread != thread) {
      (sameWarp ? before.byWarp : before.byOthers) = true;
    }
  }
}

void RaceDetector::write(const void* address, size_t bytes, uint32_t thread, const void* code) {
  const auto first = reinterpret_cast<uintptr_t>(address) / 2;
  const auto last = (reinterpret_cast<uintptr_t>(address) + bytes - 1) / 2;
  const Access access = now(thread, code);
  for (uintptr_t place = first; place <= last; ++place) {
    Cell& cell = cellOf(place);
    if (!isOrdered(cell.write, access)) report("writes what is written by", cell.write, access);
    if (!isOrdered(cell.read, access)) report("writes what is read by", cell.read, access);
    cell.write = access;
  }
}

}  // namespace dp_moe::emulation
