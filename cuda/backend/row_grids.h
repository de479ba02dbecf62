#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <initializer_list>

#include "../kernels/row_walk.h"
#include "buffer.h"
#include "launcher.h"
#include "reports.h"

// How many threads a row gets, and blocks a launch. None of it changes a result.

namespace dp_moe {

constexpr uint32_t kRowThreads = 256;
constexpr int kMaxLaneBits = 5;

/// Blocks of `perBlock` items each.
inline uint32_t blocksFor(int64_t items, int64_t perBlock) {
  return static_cast<uint32_t>((items + perBlock - 1) / perBlock);
}

/// Elements in 16 bytes.
inline int64_t packOf(DType dtype) { return 16 / bytesPerElement(dtype); }

/// Whether rows of d elements in all of these operands can be moved 16 bytes at a time. Operands that own their memory
/// are aligned, so that this is a function of d; a slice may not be.
inline bool packedRows(int64_t d, DType dtype, std::initializer_list<const void*> operands) {
  return d % packOf(dtype) == 0 && std::all_of(operands.begin(), operands.end(), [](const void* address) {
           return reinterpret_cast<uintptr_t>(address) % 16 == 0;
         });
}

/// 2^result threads share a row: enough for its accesses, at most a warp.
inline int32_t laneBitsFor(int64_t d, DType dtype, bool packed) {
  const int64_t accesses = packed ? d / packOf(dtype) : d;
  return std::min(kMaxLaneBits,
                  static_cast<int>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(accesses, 1) - 1))));
}

inline RowWalk rowWalk(int64_t rows, int64_t d, const Input<int32_t>& countOffsets, DType dtype, bool packed) {
  const bool counted = countOffsets.data != nullptr && countOffsets.size > 0;
  return {rows, d, counted ? countOffsets.data + countOffsets.size - 1 : nullptr, laneBitsFor(d, dtype, packed),
          packed};
}

inline Dim gridOf(const RowWalk& walk) { return {blocksFor(walk.rows << walk.laneBits, kRowThreads)}; }

inline UnitWalk unitWalk(const Input<int32_t>& offsets, const Report& wrongOffsets, int64_t rows, int64_t d,
                         DType dtype, bool packed) {
  return {offsets.data, wrongOffsets, rows, d, laneBitsFor(d, dtype, packed), packed};
}

/// Blocks for units of `items` items together, of which a block has `perBlock` at a time: enough for the mean unit.
inline Dim gridOfUnits(int64_t units, int64_t items, int64_t perBlock) {
  constexpr int64_t kMostPerUnit = 64;
  if (units == 0) return {0};
  const int64_t mean = (items + units - 1) / units;
  return {static_cast<uint32_t>(units),
          static_cast<uint32_t>(std::clamp<int64_t>((mean + perBlock - 1) / perBlock, 1, kMostPerUnit))};
}

inline Dim gridOf(const UnitWalk& walk, int64_t units, int64_t rows) {
  return gridOfUnits(units, rows, kRowThreads >> walk.laneBits);
}

}  // namespace dp_moe
