#include <algorithm>
#include <cstring>

#include "executor.h"

// The shared memory of a block, and the copies into it that run in the background.

namespace dp_moe::emulation {

namespace {
constexpr unsigned char kPoison = 0xff;  // NaN in every format
}

void* Executor::sharedMemory(const void* key, size_t bytes) {
  for (SharedPiece& piece : shared_) {
    if (piece.key != key || piece.size != bytes) continue;
    if (!piece.used) std::memset(piece.bytes.get(), kPoison, bytes);
    piece.used = true;
    return piece.bytes.get();
  }
  size_t total = bytes;
  for (const SharedPiece& piece : shared_) total += piece.size;
  if (total > kMaxStaticSharedMemory || total + dynamic_.size > kMaxSharedMemory) {
    throw Fault(std::to_string(total) + " bytes of static and " + std::to_string(dynamic_.size) +
                " of dynamic shared memory; " + std::to_string(kMaxStaticSharedMemory) + " and " +
                std::to_string(kMaxSharedMemory) + " in all is what every device has");
  }
  shared_.push_back({key, bytes, std::make_unique<std::byte[]>(bytes), true, {}});
  std::memset(shared_.back().bytes.get(), kPoison, bytes);
  return shared_.back().bytes.get();
}

Executor::SharedPiece* Executor::pieceOf(const void* address, size_t bytes) {
  const auto* byte = static_cast<const std::byte*>(address);
  const auto holds = [&](const SharedPiece& piece) {
    return byte >= piece.bytes.get() && byte + bytes <= piece.bytes.get() + piece.size;
  };
  if (holds(dynamic_)) return &dynamic_;
  const auto found = std::find_if(shared_.begin(), shared_.end(), holds);
  return found == shared_.end() ? nullptr : &*found;
}

void Executor::checkShared(const void* address, const char* what, Where where) {
  if (pieceOf(address, 16) == nullptr) throw Fault(placeOf(what, where) + ": 16 bytes that are not in shared memory");
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
    throw Fault(placeOf(what, where) + ": the address in shared memory is not a multiple of 16");
  }
}

void Executor::copyAsync(void* shared, const void* global, int validBytes, Where where, const void* code) {
  checkShared(shared, "copyAsync16", where);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) {
    throw Fault(placeOf("copyAsync16", where) + ": the address in global memory is not a multiple of 16");
  }
  if (validBytes < 0 || validBytes > 16) throw Fault(placeOf("copyAsync16", where) + ": 0 to 16 bytes can be valid");
  Fiber& fiber = current();
  AsyncCopy copy{shared, fiber.asyncGroup, {}, code};
  if (validBytes > 0) noteRead(global, static_cast<size_t>(validBytes), code);
  noteWrite(shared, copy.bytes.size(), code);
  std::memcpy(copy.bytes.data(), global, static_cast<size_t>(validBytes));
  std::memset(shared, kPoison, 16);
  fiber.copies.push_back(copy);
}

void Executor::closeAsyncGroup() { ++current().asyncGroup; }

void Executor::waitForAsync(int newest) {
  Fiber& fiber = current();
  const int64_t firstLeft = fiber.asyncGroup - newest;
  size_t left = 0;
  for (const AsyncCopy& copy : fiber.copies) {
    if (copy.group < firstLeft) {
      noteWrite(copy.to, copy.bytes.size(), copy.code);
      std::memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
    } else {
      fiber.copies[left++] = copy;
    }
  }
  fiber.copies.resize(left);
}

namespace {

struct Cells {
  RaceDetector::Cell* first;
  size_t count;
};

Cells cellsOf(std::vector<RaceDetector::Cell>& cells, size_t pieceBytes, size_t offset, size_t bytes) {
  constexpr size_t width = RaceDetector::kCellBytes;
  if (cells.empty()) cells.resize((pieceBytes + width - 1) / width);
  return {&cells[offset / width], (offset + bytes - 1) / width - offset / width + 1};
}

}  // namespace

void Executor::noteRead(const void* address, size_t bytes, const void* code) {
  if (!RaceDetector::watches || !isShared(address)) return;
  if (SharedPiece* piece = pieceOf(address, bytes)) {
    const auto offset = static_cast<size_t>(static_cast<const std::byte*>(address) - piece->bytes.get());
    const auto [first, count] = cellsOf(piece->cells, piece->size, offset, bytes);
    return races_.readShared(first, count, running.thread.x, code);
  }
  races_.readGlobal(address, bytes, running.thread.x, code);
}

void Executor::noteWrite(const void* address, size_t bytes, const void* code) {
  if (!RaceDetector::watches || !isShared(address)) return;
  if (SharedPiece* piece = pieceOf(address, bytes)) {
    const auto offset = static_cast<size_t>(static_cast<const std::byte*>(address) - piece->bytes.get());
    const auto [first, count] = cellsOf(piece->cells, piece->size, offset, bytes);
    return races_.writeShared(first, count, running.thread.x, code);
  }
  races_.writeGlobal(address, bytes, running.thread.x, code);
}

}  // namespace dp_moe::emulation
