#pragma once

#include <cstdint>

#include "bfloat16.h"
#include "kernel.h"

// Activations are stored as T = float or bfloat16 and computed with in float. Memory moves in packs of 16 bytes where
// rows allow it.

namespace dp_moe {

DEVICE float toFloat(float value) { return value; }

template <class T>
DEVICE T fromFloat(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return toBfloat16(value);
  }
}

/// How many elements of T are 16 bytes.
template <class T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

/// n elements that are read or written at once, in accesses of at most 16 bytes.
template <class T, int n>
struct alignas(n * sizeof(T) < 16 ? n * sizeof(T) : 16) Pack {
  T value[n];
};

template <class T, int n>
DEVICE Pack<T, n> loadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, n>*>(from);
}

template <class T, int n>
DEVICE void storePack(T* to, const Pack<T, n>& pack) {
  *reinterpret_cast<Pack<T, n>*>(to) = pack;
}

/// n elements as floats.
template <class T, int n>
DEVICE Pack<float, n> loadFloats(const T* from) {
  const Pack<T, n> pack = loadPack<T, n>(from);
  Pack<float, n> floats;
  for (int i = 0; i < n; ++i) floats.value[i] = toFloat(pack.value[i]);
  return floats;
}

/// Rounds n floats to T.
template <class T, int n>
DEVICE void storeFloats(T* to, const Pack<float, n>& floats) {
  Pack<T, n> pack;
  for (int i = 0; i < n; ++i) pack.value[i] = fromFloat<T>(floats.value[i]);
  storePack<T, n>(to, pack);
}

}  // namespace dp_moe
