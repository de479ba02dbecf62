#include "races.h"

#include <dlfcn.h>

#include <cstdio>
#include <memory>

namespace dp_moe::emulation {

namespace {

constexpr size_t kFirstPlaces = 1 << 16;

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

size_t pageOf(uintptr_t address) { return (address >> 12) * 0x9e3779b97f4a7c15 >> 48; }

}  // namespace

void RaceDetector::startLaunch() {
  if (watches && writes_.empty()) writes_.resize(kFirstPlaces);
  if (used_ > 0) pages_.reset();
  ++launch_;
  used_ = 0;
  blockStart_ = interval_ = 0;
  found_.clear();
}

RaceDetector::Written& RaceDetector::find(uintptr_t place) {
  const size_t mask = writes_.size() - 1;
  size_t index = place * 0x9e3779b97f4a7c15 >> 24 & mask;
  while (writes_[index].launch == launch_ && writes_[index].place != place) index = (index + 1) & mask;
  return writes_[index];
}

void RaceDetector::grow() {
  std::vector<Written> before(writes_.size() * 4);
  before.swap(writes_);
  for (const Written& written : before) {
    if (written.launch == launch_) find(written.place) = written;
  }
}

bool RaceDetector::isOrdered(const Access& earlier, const Access& later) const {
  if (earlier.interval != later.interval) return true;
  if (earlier.byOthers) return false;
  if (earlier.thread / 32 != later.thread / 32) return false;
  if (earlier.warpInterval != later.warpInterval) return true;
  return earlier.thread == later.thread && !earlier.byWarp;
}

void RaceDetector::report(const char* what, const Access& earlier, const Access& later) {
  if (!found_.empty()) return;
  found_ = "race: thread " + std::to_string(later.thread) + " " + what + " thread " + std::to_string(earlier.thread);
  found_ += isOfThisBlock(earlier) ? "" : " of another block";
  found_ += " (" + lineOf(later.code) + " after " + lineOf(earlier.code) + ") with no barrier between";
}

void RaceDetector::readShared(Cell* first, size_t count, uint32_t thread, const void* code) {
  const Access access = now(thread, code);
  for (Cell* cell = first; cell < first + count; ++cell) {
    if (!isOrdered(cell->write, access)) report("reads what is written by", cell->write, access);
    Access& before = cell->read;
    const bool sameWarp = before.thread / 32 == thread / 32;
    const bool earlierInWarp = sameWarp && !before.byOthers && before.warpInterval != access.warpInterval;
    if (before.interval != access.interval || earlierInWarp) {
      before = access;
    } else if (before.thread != thread) {
      (sameWarp ? before.byWarp : before.byOthers) = true;
    }
  }
}

void RaceDetector::writeShared(Cell* first, size_t count, uint32_t thread, const void* code) {
  const Access access = now(thread, code);
  for (Cell* cell = first; cell < first + count; ++cell) {
    if (!isOrdered(cell->write, access)) report("writes what is written by", cell->write, access);
    if (!isOrdered(cell->read, access)) report("writes what is read by", cell->read, access);
    cell->write = access;
  }
}

void RaceDetector::readGlobal(const void* address, size_t bytes, uint32_t thread, const void* code) {
  const auto start = reinterpret_cast<uintptr_t>(address);
  if (!pages_[pageOf(start)] && !pages_[pageOf(start + bytes - 1)]) return;
  const Access access = now(thread, code);
  for (uintptr_t place = start / kCellBytes; place <= (start + bytes - 1) / kCellBytes; ++place) {
    const Written& written = find(place);
    if (written.launch != launch_) continue;
    if (!isOfThisBlock(written.write) || !isOrdered(written.write, access)) {
      report("reads what is written by", written.write, access);
    }
  }
}

void RaceDetector::writeGlobal(const void* address, size_t bytes, uint32_t thread, const void* code) {
  const auto start = reinterpret_cast<uintptr_t>(address);
  pages_.set(pageOf(start));
  pages_.set(pageOf(start + bytes - 1));
  const Access access = now(thread, code);
  for (uintptr_t place = start / kCellBytes; place <= (start + bytes - 1) / kCellBytes; ++place) {
    if (used_ * 2 > writes_.size()) grow();
    Written& written = find(place);
    if (written.launch != launch_) {
      ++used_;
    } else if (!isOfThisBlock(written.write) || !isOrdered(written.write, access)) {
      report("writes what is written by", written.write, access);
    }
    written = {place, launch_, access};
  }
}

}  // namespace dp_moe::emulation
