#pragma once

#include "columns.h"
#include "reductions.h"
#include "unit_rows.h"

// Dot products of the rows of one operand with those of another, a tile of pairs per warp, from global memory: rows of
// a tile are read together, so that the caches serve what tiles have in common. Lanes run over the columns; each pair
// is a fixed function of its two rows.
//
// float32: a lane takes four columns of every 128 and multiplies them with fmaf; after 2048 columns its sums are added
// over the lanes in a tree, and these to the total.
// bfloat16: mma on 16 columns at a time. Pairs do not care for the order of columns, so a lane reads eight that are
// neighbours and hands two of them to each of four quarters of two mma. An mma starts from zero; its sums go into
// chains of 16, which are added to the total: the tensor cores' own additions stay short.
//
// The error of such a dot product, relative to sum |a||b|, is at most gamma = n u / (1 - n u), u = 2^-24, n the
// roundings that a term passes through. float32: one per fmaf of its chain, five in the tree, one per total. bfloat16:
// products are exact; an mma may truncate each of its 16 terms and the result to 24 bits of the largest: 16 2^-23,
// which counts as 32 roundings; then one per mma of its chain, one per total. Products below the smallest normal number
// may be lost.

namespace dp_moe {

/// Rows of an operand [*, columns]: row i is at index[i], or i where index is null; count rows, at least one.
template <class T>
struct TileRows {
  const T* data;
  const int32_t* index;
  int64_t columns;
  int64_t limit;  // of an index, at least 1
  int32_t count;
  bool packed;
  Report wrongIndex;

  /// A row past the last one is the first one once more: nobody looks at its pairs.
  DEVICE const T* row(int i) const {
    if (i >= count) i = 0;
    if (index == nullptr) return data + i * columns;
    const int64_t at = index[i];
    if (at >= 0 && at < limit) return data + at * columns;
    report(wrongIndex, at);
    return data;
  }
};

/// Adds value[i] of all lanes: a tree that halves the values as it goes. Lane l keeps those of pairs l count / 32 and
/// on, count / 32 of them, or one where count < 32: of pair l count / 32, the same in 32 / count neighbouring lanes.
template <int count, int distance = kWarp / 2>
DEVICE void scatterSum(float* value) {
  if constexpr (distance > 0) {
    constexpr int held = count > 1 ? count / 2 : 1;
    const bool upper = (static_cast<int>(threadIdx.x) & distance) != 0;
    UNROLL
    for (int i = 0; i < held; ++i) {
      const float mine = count > 1 && upper ? value[count - held + i] : value[i];
      const float theirs = count > 1 && !upper ? value[count - held + i] : value[i];
      value[i] = mine + __shfl_xor_sync(kFullMask, theirs, distance);
    }
    scatterSum<held, distance / 2>(value);
  }
}

/// height x width pairs. `same`: both operands are the same rows.
template <int height, int width, bool same>
struct FloatTile {
  static constexpr int rows = height;
  static constexpr int columns = width;
  static constexpr int pairs = rows * columns;
  static constexpr int values = pairs < kWarp ? 1 : pairs / kWarp;
  static constexpr int kSlice = 2048;

  /// Pair v of this lane; false where another lane has it.
  DEVICE static bool place(int v, int& row, int& column) {
    constexpr int lanesPerPair = pairs < kWarp ? kWarp / pairs : 1;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int pair = lane / lanesPerPair * values + v;
    row = pair / columns;
    column = pair % columns;
    return lane % lanesPerPair == 0;
  }

  template <bool packed>
  DEVICE static void dots(const TileRows<float>& a, int firstA, const TileRows<float>& b, int firstB,
                          float (&out)[values]) {
    const float* left[rows];
    const float* right[columns];
    UNROLL
    for (int i = 0; i < rows; ++i) left[i] = a.row(firstA + i);
    UNROLL
    for (int j = 0; j < columns; ++j) right[j] = same ? left[j] : b.row(firstB + j);
    UNROLL
    for (int v = 0; v < values; ++v) out[v] = 0;
    for (int64_t slice = 0; slice < a.columns; slice += kSlice) {
      const int64_t end = slice + kSlice < a.columns ? slice + kSlice : a.columns;
      float sum[pairs] = {};
      const int64_t first = slice + static_cast<int>(threadIdx.x) % kWarp * 4;
#pragma unroll 1
      for (int64_t c = first; c < end; c += kWarp * 4) {
        if constexpr (packed) {
          Pack<float, 4> l[rows];
          UNROLL
          for (int i = 0; i < rows; ++i) l[i] = loadPack<float, 4>(left[i] + c);
          UNROLL
          for (int j = 0; j < columns; ++j) {
            const Pack<float, 4> r = same ? l[j] : loadPack<float, 4>(right[j] + c);
            UNROLL
            for (int i = 0; i < rows; ++i) {
              UNROLL
              for (int n = 0; n < 4; ++n) sum[i * columns + j] = fmaf(l[i].value[n], r.value[n], sum[i * columns + j]);
            }
          }
        } else {
#pragma unroll 1
          for (int64_t at = c; at < c + 4 && at < end; ++at) {
            float l[rows];
            UNROLL
            for (int i = 0; i < rows; ++i) l[i] = left[i][at];
            UNROLL
            for (int j = 0; j < columns; ++j) {
              const float r = same ? l[j] : right[j][at];
              UNROLL
              for (int i = 0; i < rows; ++i) sum[i * columns + j] = fmaf(l[i], r, sum[i * columns + j]);
            }
          }
        }
      }
      scatterSum<pairs>(sum);
      UNROLL
      for (int v = 0; v < values; ++v) out[v] += sum[v];
    }
  }
};

/// 16 x 8 blocks pairs. `same`: the diagonal tile of one operand, 8 x 8 or 16 x 16.
template <int blocks, bool same>
struct Bfloat16Tile {
  static constexpr int rows = same && blocks == 1 ? 8 : 16;
  static constexpr int columns = 8 * blocks;
  static constexpr int values = 4 * blocks;
  static constexpr int kChain = 256;

  DEVICE static bool place(int v, int& row, int& column) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    row = lane / 4 + v % 4 / 2 * 8;
    column = v / 4 * 8 + lane % 4 * 2 + v % 2;
    return row < rows;
  }

  template <bool packed>
  DEVICE static void dots(const TileRows<bfloat16>& a, int firstA, const TileRows<bfloat16>& b, int firstB,
                          float (&out)[values]) {
    const int group = static_cast<int>(threadIdx.x) % kWarp / 4;
    const bfloat16* upper = a.row(firstA + group);
    [[maybe_unused]] const bfloat16* lower = a.row(firstA + group + 8);
    [[maybe_unused]] const bfloat16* right[blocks];
    UNROLL
    for (int j = 0; j < blocks && !same; ++j) right[j] = b.row(firstB + 8 * j + group);
    UNROLL
    for (int v = 0; v < values; ++v) out[v] = 0;
    for (int64_t chain = 0; chain < a.columns; chain += kChain) {
      const int64_t end = chain + kChain < a.columns ? chain + kChain : a.columns;
      float sum[values] = {};
#pragma unroll 1
      for (int64_t k = chain; k < end; k += 32) {
        const int64_t c = k + static_cast<int>(threadIdx.x) % 4 * 8;
        // The lane's words of an mma, one of two on these 32 columns.
        if constexpr (packed) {
          const bool inside = c < end;
          const Pack<uint32_t, 4> l = inside ? loadWords(upper + c) : Pack<uint32_t, 4>{};
          const Pack<uint32_t, 4> h = inside && rows > 8 ? loadWords(lower + c) : Pack<uint32_t, 4>{};
          Pack<uint32_t, 4> r[blocks];
          UNROLL
          for (int j = 0; j < blocks; ++j) {
            r[j] = same ? (j == 0 ? l : h) : inside ? loadWords(right[j] + c) : Pack<uint32_t, 4>{};
          }
          UNROLL
          for (int w = 0; w < 4; w += 2) {
            UNROLL
            for (int j = 0; j < blocks; ++j) {
              addProduct(sum + 4 * j, {l.value[w], h.value[w], l.value[w + 1], h.value[w + 1]},
                         {r[j].value[w], r[j].value[w + 1]});
            }
          }
        } else {
#pragma unroll 1
          for (int64_t at = c; at < c + 8; at += 4) {
            const uint32_t l[2] = {pairAt(upper, at, end), pairAt(upper, at + 2, end)};
            const uint32_t h[2] = {rows > 8 ? pairAt(lower, at, end) : 0, rows > 8 ? pairAt(lower, at + 2, end) : 0};
            UNROLL
            for (int j = 0; j < blocks; ++j) {
              const uint32_t r0 = same ? (j == 0 ? l[0] : h[0]) : pairAt(right[j], at, end);
              const uint32_t r1 = same ? (j == 0 ? l[1] : h[1]) : pairAt(right[j], at + 2, end);
              addProduct(sum + 4 * j, {l[0], h[0], l[1], h[1]}, {r0, r1});
            }
          }
        }
      }
      UNROLL
      for (int v = 0; v < values; ++v) out[v] += sum[v];
    }
  }

 private:
  DEVICE static Pack<uint32_t, 4> loadWords(const bfloat16* from) {
    return *reinterpret_cast<const Pack<uint32_t, 4>*>(from);
  }
  /// Elements c and c + 1 of a row, zero from `end` on.
  DEVICE static uint32_t pairAt(const bfloat16* row, int64_t c, int64_t end) {
    const uint32_t low = c < end ? row[c].bits : 0, high = c + 1 < end ? row[c + 1].bits : 0;
    return low | high << 16;
  }
  DEVICE static void addProduct(float* sum, const uint32_t (&left)[4], const uint32_t (&right)[2]) {
    float product[4] = {};
    multiplyAccumulate(product, left, right);
    UNROLL
    for (int v = 0; v < 4; ++v) sum[v] += product[v];
  }
};

/// Tile::dots, in whole packs where all rows allow it; the bits are the same.
template <class Tile, class T>
DEVICE void tileDots(const TileRows<T>& a, int firstA, const TileRows<T>& b, int firstB, float (&out)[Tile::values]) {
  if (a.packed && b.packed) {
    Tile::template dots<true>(a, firstA, b, firstB, out);
  } else {
    Tile::template dots<false>(a, firstA, b, firstB, out);
  }
}

/// Tiles of a segment with itself by its rows, and of two operands.
template <class T>
struct DotTiles;
template <>
struct DotTiles<float> {
  using Smallest = FloatTile<4, 4, true>;
  using Small = FloatTile<8, 8, true>;
  using Large = FloatTile<8, 4, false>;
  DEVICE static double roundings(int64_t columns) {
    constexpr int64_t kSlice = Large::kSlice;
    const int64_t longest = columns < kSlice ? columns : kSlice;
    return static_cast<double>((longest + 127) / 128 * 4 + 5 + (columns + kSlice - 1) / kSlice);
  }
  static constexpr double kLost = 0x1p-149;
};
template <>
struct DotTiles<bfloat16> {
  using Smallest = Bfloat16Tile<1, true>;
  using Small = Bfloat16Tile<2, true>;
  using Large = Bfloat16Tile<4, false>;
  DEVICE static double roundings(int64_t columns) {
    constexpr int64_t kChain = Large::kChain;
    const int64_t longest = columns < kChain ? columns : kChain;
    return static_cast<double>(32 + (longest + 15) / 16 + (columns + kChain - 1) / kChain);
  }
  static constexpr double kLost = 0x1p-126;
};

/// Relative error of a dot product against sum |a||b|.
template <class T>
DEVICE double dotError(int64_t columns) {
  const double roundings = DotTiles<T>::roundings(columns);
  return roundings * 0x1p-24 / (1 - roundings * 0x1p-24);
}
/// And its absolute error where products are lost.
template <class T>
DEVICE double dotUnderflow(int64_t columns) {
  return static_cast<double>(columns) * DotTiles<T>::kLost;
}

}  // namespace dp_moe
