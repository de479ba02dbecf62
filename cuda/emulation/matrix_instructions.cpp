#include <cstring>

#include "executor.h"

// ldmatrix and mma.sync.m16n8k16, with the layout of fragments that the PTX manual gives.

namespace dp_moe::emulation {

namespace {

struct LoadOperands {
  uint32_t* result;
  const void* row;
};

template <bool transposed>
void resolveLoad(void* const lanes[32], uint32_t) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t elements[8][8];
    for (int row = 0; row < 8; ++row) {
      std::memcpy(elements[row], static_cast<LoadOperands*>(lanes[matrix * 8 + row])->row, sizeof elements[row]);
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int major = lane / 4;
      const int minor = lane % 4 * 2;
      const uint16_t low = transposed ? elements[minor][major] : elements[major][minor];
      const uint16_t high = transposed ? elements[minor + 1][major] : elements[major][minor + 1];
      static_cast<LoadOperands*>(lanes[lane])->result[matrix] = static_cast<uint32_t>(high) << 16 | low;
    }
  }
}

struct MultiplyOperands {
  float* c;
  const uint32_t* a;
  const uint32_t* b;
};

float half(uint32_t pair, int which) {
  return toFloat(bfloat16{static_cast<uint16_t>(which != 0 ? pair >> 16 : pair)});
}

void resolveMultiply(void* const lanes[32], uint32_t) {
  float a[16][16];
  float b[16][8];
  float c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const MultiplyOperands*>(lanes[lane]);
    const int group = lane / 4;
    const int pair = lane % 4 * 2;
    for (int i = 0; i < 8; ++i) {
      a[group + i / 2 % 2 * 8][pair + i % 2 + i / 4 * 8] = half(own.a[i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) {
      b[pair + i % 2 + i / 2 * 8][group] = half(own.b[i / 2], i % 2);
      c[group + i / 2 * 8][pair + i % 2] = own.c[i];
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) c[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const MultiplyOperands*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) own.c[i] = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

}  // namespace

void loadMatrices(uint32_t (&r)[4], const void* row, bool transposed, Where where) {
  const char* what = transposed ? "loadMatrix4Transposed" : "loadMatrix4";
  active->checkShared(row, what, where);
  active->noteRead(row, 16, __builtin_return_address(0));
  LoadOperands operands{r, row};
  active->meetWarp(kFullMask, transposed ? resolveLoad<true> : resolveLoad<false>, &operands, what, where);
}

void multiplyMatrices(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Where where) {
  MultiplyOperands operands{c, a, b};
  active->meetWarp(kFullMask, resolveMultiply, &operands, "multiplyAccumulate", where);
}

}  // namespace dp_moe::emulation
