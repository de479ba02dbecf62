#pragma once

#include "kernel.h"
#include "random/gaussian.h"
#include "random/normal_transform.h"
#include "unroll.h"

// The noise of native/random/gaussian.h: one thread makes one block of ChaCha20, that is eight normals 16 elements
// apart. The operations are the CPU's, in its order, so the doubles are its bits.

namespace dp_moe {

constexpr int kNormalsPerBlock = 8;

DEVICE double doubleOf(uint64_t bits) {
  union {
    uint64_t bits;
    double value;
  } word;
  word.bits = bits;
  return word.value;
}
DEVICE uint64_t bitsOf(double value) {
  union {
    double value;
    uint64_t bits;
  } word;
  word.value = value;
  return word.bits;
}
DEVICE double joinWords(uint32_t low, uint32_t high) { return doubleOf(static_cast<uint64_t>(high) << 32 | low); }

/// Natural logarithm of u in (0, 1].
DEVICE double logOfUniform(double u) {
  const uint64_t shifted = bitsOf(u) + (kBitsOfOne - kBitsOfSqrtHalf);
  const double exponent = doubleOf(shifted >> 52 | kBitsOfTwoTo52) - (0x1p52 + 1023.0);
  return logOfParts(doubleOf((shifted & kFractionBits) + kBitsOfSqrtHalf) - 1.0, exponent);
}

/// The pair of normals of four words.
DEVICE void normalsOfWords(const uint32_t* w, double& x, double& y) {
  const double u = uniformOfParts(joinWords(w[1], kWordOfTwoTo20), joinWords(w[0] >> 11, kWordOfHalf));
  const double r = angleOfParts(joinWords(w[3] << 2, kWordOfTwoTo20), joinWords(w[2] >> 9, kWordOfHalf));
  const uint64_t sign = static_cast<uint64_t>(w[3] & 0x80000000) << 32;
  const double radius = doubleOf(bitsOf(sqrt(logOfUniform(u) * -2.0)) ^ sign);
  const double sine = sinOfQuarter(r);
  const double cosine = cosOfQuarter(r);
  const bool swap = (w[3] & 0x40000000) != 0;
  x = radius * (swap ? sine : cosine);
  y = radius * (swap ? cosine : sine);
}

/// The element of a stream that is normal v of a block.
DEVICE int64_t elementOf(int64_t block, int v) {
  return block / kBlocksPerGroup * kNormalsPerGroup + v * kBlocksPerGroup + block % kBlocksPerGroup;
}

/// The words of block `block` of the noise of (key; step, stream).
DEVICE void noiseWords(const int32_t* key, int64_t step, int64_t stream, int64_t block, uint32_t (&words)[16]) {
  uint32_t keyWords[8];
  UNROLL
  for (int i = 0; i < 8; ++i) keyWords[i] = static_cast<uint32_t>(key[i]);
  chachaBlock(keyWords,
              {static_cast<uint32_t>(block), purposeWord(RandomPurpose::noise, 0), static_cast<uint32_t>(step),
               static_cast<uint32_t>(stream)},
              words);
}

}  // namespace dp_moe
