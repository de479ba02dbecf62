#pragma once

#include <numeric>

#include "harness.h"

namespace dp_moe::conformance {

/// Offsets [units + 1] of units with these numbers of rows.
inline std::vector<int32_t> offsetsOf(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> offsets(lengths.size() + 1);
  std::partial_sum(lengths.begin(), lengths.end(), offsets.begin() + 1);
  return offsets;
}

/// The part of a row matrix (d per row) that belongs to one unit.
template <class T>
std::vector<T> rowsOfUnit(const std::vector<T>& values, const std::vector<int32_t>& offsets, size_t unit, int64_t d) {
  return {values.begin() + offsets[unit] * d, values.begin() + offsets[unit + 1] * d};
}

/// Parts joined in order.
template <class T>
std::vector<T> join(const std::vector<std::vector<T>>& parts) {
  std::vector<T> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

/// Unit lengths to test with: none, empty units, one row, tails, many tiny units, long ones.
inline std::vector<std::vector<int32_t>> unitLengths() {
  return {{}, {0}, {1}, {0, 3, 0, 1, 0}, {5, 1, 17, 2}, std::vector<int32_t>(40, 2), {130, 65, 64, 63}};
}

/// Widths below, at and above a vector of every instruction set.
inline std::vector<int64_t> widths() { return {1, 3, 8, 16, 17, 31, 128}; }

inline std::string describe(const std::vector<int32_t>& lengths, int64_t d) {
  std::ostringstream text;
  text << "lengths";
  for (size_t i = 0; i < lengths.size() && i < 6; ++i) text << ' ' << lengths[i];
  text << ", d " << d;
  return text.str();
}

}  // namespace dp_moe::conformance
