#pragma once

#include <cstdint>

#include "kernel.h"
#include "real.h"
#include "reductions.h"
#include "row_team_shape.h"

// Threads that share a row whose elements meet in sums. Which thread has which element follows from the row's length
// and type alone, so that a row's results are a function of the row.

namespace dp_moe {

/// Warps of a block that has one row.
constexpr int kMaxWarps = kBlockThreads / kWarp;

struct WarpTeam {
  static constexpr int kThreads = kWarp;
  DEVICE static int rank() { return static_cast<int>(threadIdx.x % kWarp); }
  DEVICE static int64_t row() { return static_cast<int64_t>(blockIdx.x) * kWarpTeams + threadIdx.x / kWarp; }
  DEVICE static float sum(float value, float*) { return warpSum(value); }
};

struct BlockTeam {
  static constexpr int kThreads = kBlockThreads;
  DEVICE static int rank() { return static_cast<int>(threadIdx.x); }
  DEVICE static int64_t row() { return blockIdx.x; }
  /// `parts` [kMaxWarps] is this sum's own.
  DEVICE static float sum(float value, float* parts) { return blockSum(value, parts); }
};

/// n elements of a row, in one access if it is aligned.
template <class T, int n>
DEVICE Pack<float, n> loadElements(const T* from, bool aligned) {
  if (aligned) return loadFloats<T, n>(from);
  Pack<float, n> values;
  for (int i = 0; i < n; ++i) values.value[i] = toFloat(from[i]);
  return values;
}

template <class T, int n>
DEVICE void storeElements(T* to, const Pack<float, n>& values, bool aligned) {
  if (aligned) {
    storeFloats<T, n>(to, values);
  } else {
    for (int i = 0; i < n; ++i) to[i] = fromFloat<T>(values.value[i]);
  }
}

/// n elements of an optional operand.
template <int n>
DEVICE Pack<float, n> loadOptional(const float* from, int64_t at, float missing, bool aligned) {
  if (from != nullptr) return loadElements<float, n>(from + at, aligned);
  Pack<float, n> values;
  for (int i = 0; i < n; ++i) values.value[i] = missing;
  return values;
}

/// f(first element) for each of this thread's packs of a row of d elements.
template <class Team, int n, class F>
DEVICE void forPacks(int64_t d, F&& f) {
  for (int64_t c = Team::rank() * n; c < d; c += Team::kThreads * n) f(c);
}

}  // namespace dp_moe
