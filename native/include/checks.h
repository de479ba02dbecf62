#pragma once

#include <string>

#include "buffer.h"
#include "error.h"

namespace dp_moe {

inline void checkThat(bool condition, const char* op, const std::string& expected) {
  if (!condition) throw Error("INVALID_ARGUMENT", std::string(op) + ": expected " + expected);
}

inline void checkSizeIs(int64_t size, int64_t expected, const char* op, const char* field) {
  if (size != expected) {
    throw Error("SHAPE_MISMATCH", std::string(op) + ": expected " + std::to_string(expected) + " elements for " +
                                      field + ", got " + std::to_string(size));
  }
}

/// An operand of exactly `expected` elements.
template <class Buffer>
void checkSize(const Buffer& buffer, int64_t expected, const char* op, const char* field) {
  checkSizeIs(buffer.data == nullptr ? 0 : buffer.size, expected, op, field);
}

/// An operand that may be left out.
template <class Buffer>
void checkOptionalSize(const Buffer& buffer, int64_t expected, const char* op, const char* field) {
  if (buffer.data != nullptr) checkSizeIs(buffer.size, expected, op, field);
}

/// An operand of [any number, columns] elements that a row index or a table of tiles points into.
template <class Buffer>
void checkColumns(const Buffer& buffer, int64_t columns, const char* op, const char* field) {
  if (columns <= 0 || buffer.size % columns != 0) {
    throw Error("SHAPE_MISMATCH", std::string(op) + ": expected rows of " + std::to_string(columns) + " elements for " +
                                      field + ", got " + std::to_string(buffer.size) + " elements");
  }
}

/// Offsets [count + 1] of runs of rows: rising, within [0, rows].
inline void checkOffsets(const Input<int32_t>& offsets, int64_t count, int64_t rows, const char* op,
                         const char* field) {
  checkSize(offsets, count + 1, op, field);
  int32_t previous = 0;
  for (int64_t i = 0; i <= count; ++i) {
    if (offsets.data[i] < previous || offsets.data[i] > rows) {
      throw Error("INVALID_ARGUMENT", std::string(op) + ": expected " + field + " to rise from 0 to at most " +
                                          std::to_string(rows) + " rows, got " + std::to_string(offsets.data[i]) +
                                          " at position " + std::to_string(i));
    }
    previous = offsets.data[i];
  }
}

}  // namespace dp_moe
