#pragma once

#include <cstdint>

// ChaCha20 (RFC 8439) as the one source of random words: Gaussian noise, Poisson sampling, dropout, router jitter.
//
// A block of 16 words is a pure function of (key, counter, nonce). Nothing is ever drawn twice, because each use owns
// its nonces and every block of a nonce has one place:
//
//   purpose   counter (word 12)   word 13              word 14   word 15   one draw is
//   noise     block in stream     1 << 24              step      stream    64 bits; see gaussian.h
//   sampling  unit / 8            2 << 24              step      0         64 bits: words 2 (unit % 8), + 1
//   dropout   block in unit       3 << 24 | site       step      unit id   32 bits; see masks.h
//   jitter    block in unit       4 << 24 | site       step      unit id   32 bits
//
// Steps, streams and unit ids are below 2^32, sites below 2^24, blocks below 2^32: the ops refuse more. A stream
// belongs to one parameter, a site to one place in the model; a step is never run twice under one key with other data.

#if defined(__CUDACC__)
#define DP_MOE_RANDOM_INLINE static __forceinline__ __host__ __device__
#else
#define DP_MOE_RANDOM_INLINE static inline __attribute__((always_inline, unused))
#endif

namespace dp_moe {

enum class RandomPurpose : uint32_t { noise = 1, sampling = 2, dropout = 3, jitter = 4 };

/// The four words that follow constants and key in the state.
struct RandomBlock {
  uint32_t counter;
  uint32_t purpose;
  uint32_t step;
  uint32_t stream;
};

/// The operations of ChaCha on single words; kernels have the same on vectors of words, one block per lane.
struct ScalarWords {
  using Word = uint32_t;
  template <int n>
  DP_MOE_RANDOM_INLINE Word rotate(Word x) {
    return (x << n) | (x >> (32 - n));
  }
};

template <class Words>
DP_MOE_RANDOM_INLINE void chachaQuarterRound(typename Words::Word& a, typename Words::Word& b, typename Words::Word& c,
                                             typename Words::Word& d) {
  a += b;
  d = Words::template rotate<16>(d ^ a);
  c += d;
  b = Words::template rotate<12>(b ^ c);
  a += b;
  d = Words::template rotate<8>(d ^ a);
  c += d;
  b = Words::template rotate<7>(b ^ c);
}

/// The 20 rounds, in place; the caller adds the start state.
template <class Words>
DP_MOE_RANDOM_INLINE void chachaRounds(typename Words::Word x[16]) {
  for (int i = 0; i < 10; ++i) {
    chachaQuarterRound<Words>(x[0], x[4], x[8], x[12]);
    chachaQuarterRound<Words>(x[1], x[5], x[9], x[13]);
    chachaQuarterRound<Words>(x[2], x[6], x[10], x[14]);
    chachaQuarterRound<Words>(x[3], x[7], x[11], x[15]);
    chachaQuarterRound<Words>(x[0], x[5], x[10], x[15]);
    chachaQuarterRound<Words>(x[1], x[6], x[11], x[12]);
    chachaQuarterRound<Words>(x[2], x[7], x[8], x[13]);
    chachaQuarterRound<Words>(x[3], x[4], x[9], x[14]);
  }
}

/// The words of a block's state before the rounds.
DP_MOE_RANDOM_INLINE void chachaState(const uint32_t key[8], RandomBlock block, uint32_t state[16]) {
  state[0] = 0x61707865;  // "expand 32-byte k"
  state[1] = 0x3320646e;
  state[2] = 0x79622d32;
  state[3] = 0x6b206574;
  for (int i = 0; i < 8; ++i) state[4 + i] = key[i];
  state[12] = block.counter;
  state[13] = block.purpose;
  state[14] = block.step;
  state[15] = block.stream;
}

/// One block of 16 words.
DP_MOE_RANDOM_INLINE void chachaBlock(const uint32_t key[8], RandomBlock block, uint32_t words[16]) {
  uint32_t state[16];
  chachaState(key, block, state);
  for (int i = 0; i < 16; ++i) words[i] = state[i];
  chachaRounds<ScalarWords>(words);
  for (int i = 0; i < 16; ++i) words[i] += state[i];
}

/// Word 13: the purpose, and the site for masks.
DP_MOE_RANDOM_INLINE uint32_t purposeWord(RandomPurpose purpose, uint32_t site) {
  return static_cast<uint32_t>(purpose) << 24 | site;
}

}  // namespace dp_moe
