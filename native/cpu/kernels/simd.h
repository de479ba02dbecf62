#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// One vocabulary of vectors for every kernel. The file that includes it is compiled once per instruction set with
// DP_MOE_ISA = base, avx2 or avx512; all names live in that namespace, so the copies share no inline code.
//
// Types: vf = W floats, vi = W int32, vu = W uint32, vd = WD = W / 2 doubles, vl = WD int64. They are compiler vector
// types: + - * / & | ^ ~ << >> and comparisons work lane by lane (a comparison gives lanes of -1 or 0 in vi or vl).
// Loads and stores need no alignment. The partial forms touch exactly n lanes of memory, 0 <= n <= lanes.

#define DP_MOE_INLINE static inline __attribute__((always_inline, unused))

namespace dp_moe::DP_MOE_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif
constexpr int WD = W / 2;

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef double vd __attribute__((vector_size(4 * W)));
typedef int64_t vl __attribute__((vector_size(4 * W)));
typedef float halfFloats __attribute__((vector_size(2 * W)));  // WD floats

// ---------------------------------------------------------------- making vectors

DP_MOE_INLINE vf broadcast(float x) { return x - vf{}; }
DP_MOE_INLINE vi broadcast(int32_t x) { return x - vi{}; }
DP_MOE_INLINE vu broadcast(uint32_t x) { return x - vu{}; }
DP_MOE_INLINE vd broadcast(double x) { return x - vd{}; }

/// {0, 1, 2, ...}
DP_MOE_INLINE vi lanes() {
  vi v;
  for (int i = 0; i < W; i++) v[i] = i;
  return v;
}

DP_MOE_INLINE vi asInt(vf x) { return reinterpret_cast<vi>(x); }
DP_MOE_INLINE vf asFloat(vi x) { return reinterpret_cast<vf>(x); }
DP_MOE_INLINE vl asInt(vd x) { return reinterpret_cast<vl>(x); }
DP_MOE_INLINE vd asDouble(vl x) { return reinterpret_cast<vd>(x); }

// ---------------------------------------------------------------- memory

template <class V, class T>
DP_MOE_INLINE V loadAs(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

DP_MOE_INLINE vf load(const float* p) { return loadAs<vf>(p); }
DP_MOE_INLINE vi load(const int32_t* p) { return loadAs<vi>(p); }
DP_MOE_INLINE vu load(const uint32_t* p) { return loadAs<vu>(p); }
DP_MOE_INLINE vd load(const double* p) { return loadAs<vd>(p); }
DP_MOE_INLINE void store(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
DP_MOE_INLINE void store(int32_t* p, vi v) { __builtin_memcpy(p, &v, sizeof v); }
DP_MOE_INLINE void store(uint32_t* p, vu v) { __builtin_memcpy(p, &v, sizeof v); }
DP_MOE_INLINE void store(double* p, vd v) { __builtin_memcpy(p, &v, sizeof v); }

#if defined(__AVX512F__)
// gcc warns of uninitialized values inside its own unmasked forms; with this mask the zeroing forms are the same code.
constexpr __mmask16 allLanes = 0xffff;
DP_MOE_INLINE __mmask16 firstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
#elif defined(__AVX2__)
alignas(32) static const int32_t firstLanesTable[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
DP_MOE_INLINE __m256i firstLanes(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(firstLanesTable + 8 - n));
}
#endif

/// The first n lanes from memory, the others 0.
DP_MOE_INLINE vi loadPartial(const int32_t* p, int64_t n) {
#if defined(__AVX512F__)
  return (vi)_mm512_maskz_loadu_epi32(firstLanes(n), p);
#elif defined(__AVX2__)
  return (vi)_mm256_maskload_epi32(reinterpret_cast<const int*>(p), firstLanes(n));
#else
  vi v{};
  for (int i = 0; i < W; i++)
    if (i < n) v[i] = p[i];
  return v;
#endif
}
DP_MOE_INLINE vf loadPartial(const float* p, int64_t n) {
  return asFloat(loadPartial(reinterpret_cast<const int32_t*>(p), n));
}

/// Writes the first n lanes only.
DP_MOE_INLINE void storePartial(int32_t* p, vi v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_epi32(p, firstLanes(n), (__m512i)v);
#elif defined(__AVX2__)
  _mm256_maskstore_epi32(reinterpret_cast<int*>(p), firstLanes(n), (__m256i)v);
#else
  for (int i = 0; i < W; i++)
    if (i < n) p[i] = v[i];
#endif
}
DP_MOE_INLINE void storePartial(float* p, vf v, int64_t n) { storePartial(reinterpret_cast<int32_t*>(p), asInt(v), n); }

DP_MOE_INLINE vd loadPartial(const double* p, int64_t n) {
  vd v{};
  for (int i = 0; i < WD; i++)
    if (i < n) v[i] = p[i];
  return v;
}
DP_MOE_INLINE void storePartial(double* p, vd v, int64_t n) {
  for (int i = 0; i < WD; i++)
    if (i < n) p[i] = v[i];
}

/// base[index[i]] in lane i.
DP_MOE_INLINE vf gather(const float* base, vi index) {
#if defined(__AVX512F__)
  return (vf)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), allLanes, (__m512i)index, base, 4);
#elif defined(__AVX2__)
  return (vf)_mm256_i32gather_ps(base, (__m256i)index, 4);
#else
  vf v;
  for (int i = 0; i < W; i++) v[i] = base[index[i]];
  return v;
#endif
}

DP_MOE_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

// ---------------------------------------------------------------- arithmetic

/// a * b + c: one rounding where the instruction set has fma, two on plain x86-64.
DP_MOE_INLINE vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
DP_MOE_INLINE vd fma(vd a, vd b, vd c) {
#if defined(__AVX512F__)
  return (vd)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  return (vd)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__ARM_NEON)
  return (vd)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}
/// c - a * b.
DP_MOE_INLINE vf fnma(vf a, vf b, vf c) { return fma(-a, b, c); }
DP_MOE_INLINE vd fnma(vd a, vd b, vd c) { return fma(-a, b, c); }

/// yes where the mask's lane is -1, no where it is 0.
DP_MOE_INLINE vf select(vi mask, vf yes, vf no) { return mask ? yes : no; }
DP_MOE_INLINE vi select(vi mask, vi yes, vi no) { return mask ? yes : no; }
DP_MOE_INLINE vd select(vl mask, vd yes, vd no) { return mask ? yes : no; }

/// b where either is NaN (as x86 does), on every instruction set.
DP_MOE_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
DP_MOE_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
DP_MOE_INLINE vd max(vd a, vd b) { return a > b ? a : b; }
DP_MOE_INLINE vd min(vd a, vd b) { return a < b ? a : b; }
DP_MOE_INLINE vi max(vi a, vi b) { return a > b ? a : b; }
DP_MOE_INLINE vi min(vi a, vi b) { return a < b ? a : b; }

DP_MOE_INLINE vf abs(vf x) { return asFloat(asInt(x) & 0x7fffffff); }
DP_MOE_INLINE vd abs(vd x) { return asDouble(asInt(x) & INT64_C(0x7fffffffffffffff)); }
/// The magnitude of a with the sign of b.
DP_MOE_INLINE vf copySign(vf a, vf b) {
  return asFloat((asInt(a) & 0x7fffffff) | (asInt(b) & static_cast<int32_t>(0x80000000)));
}

DP_MOE_INLINE vf sqrt(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_maskz_sqrt_ps(allLanes, (__m512)x);
#elif defined(__AVX2__)
  return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__)
  return (vf)_mm_sqrt_ps((__m128)x);
#else
  vf y;
  for (int i = 0; i < W; i++) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}
DP_MOE_INLINE vd sqrt(vd x) {
#if defined(__AVX512F__)
  return (vd)_mm512_maskz_sqrt_pd(0xff, (__m512d)x);
#elif defined(__AVX2__)
  return (vd)_mm256_sqrt_pd((__m256d)x);
#elif defined(__x86_64__)
  return (vd)_mm_sqrt_pd((__m128d)x);
#else
  vd y;
  for (int i = 0; i < WD; i++) y[i] = __builtin_sqrt(x[i]);
  return y;
#endif
}

// ---------------------------------------------------------------- conversions

/// To the nearest integer, ties to even; |x| < 2^31.
DP_MOE_INLINE vi roundToInt(vf x) {
#if defined(__AVX512F__)
  return (vi)_mm512_maskz_cvtps_epi32(allLanes, (__m512)x);
#elif defined(__AVX2__)
  return (vi)_mm256_cvtps_epi32((__m256)x);
#elif defined(__x86_64__)
  return (vi)_mm_cvtps_epi32((__m128)x);
#elif defined(__ARM_NEON)
  return (vi)vcvtnq_s32_f32((float32x4_t)x);
#else
  vi y;
  for (int i = 0; i < W; i++) y[i] = static_cast<int32_t>(__builtin_rintf(x[i]));
  return y;
#endif
}
DP_MOE_INLINE vi truncateToInt(vf x) { return __builtin_convertvector(x, vi); }
DP_MOE_INLINE vf toFloat(vi x) { return __builtin_convertvector(x, vf); }

DP_MOE_INLINE halfFloats lowerHalf(vf x) { return loadAs<halfFloats>(&x); }
DP_MOE_INLINE halfFloats upperHalf(vf x) { return loadAs<halfFloats>(reinterpret_cast<const float*>(&x) + WD); }
DP_MOE_INLINE vd toDouble(halfFloats x) { return __builtin_convertvector(x, vd); }
DP_MOE_INLINE vd lowerDoubles(vf x) { return toDouble(lowerHalf(x)); }
DP_MOE_INLINE vd upperDoubles(vf x) { return toDouble(upperHalf(x)); }
/// WD floats from memory as doubles.
DP_MOE_INLINE vd loadDoubles(const float* p) { return toDouble(loadAs<halfFloats>(p)); }
DP_MOE_INLINE vf toFloat(vd lower, vd upper) {
  const halfFloats low = __builtin_convertvector(lower, halfFloats);
  const halfFloats high = __builtin_convertvector(upper, halfFloats);
  vf v;
  __builtin_memcpy(&v, &low, sizeof low);
  __builtin_memcpy(reinterpret_cast<float*>(&v) + WD, &high, sizeof high);
  return v;
}

// ---------------------------------------------------------------- across lanes

// Fixed trees: lane i meets lane i + half, then half of the half, ...
#if defined(__AVX512F__)
DP_MOE_INLINE float reduceAdd(vf x) {
  x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
  return (x[0] + x[2]) + (x[1] + x[3]);
}
DP_MOE_INLINE float reduceMax(vf x) {
  x = max(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  x = max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3));
  x = max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1));
  return x[0] > x[1] ? x[0] : x[1];
}
DP_MOE_INLINE double reduceAdd(vd x) {
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
  return (x[0] + x[2]) + (x[1] + x[3]);
}
#elif defined(__AVX2__)
DP_MOE_INLINE float reduceAdd(vf x) {
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3);
  return (x[0] + x[2]) + (x[1] + x[3]);
}
DP_MOE_INLINE float reduceMax(vf x) {
  x = max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
  x = max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 2, 3, 0, 1));
  return x[0] > x[1] ? x[0] : x[1];
}
DP_MOE_INLINE double reduceAdd(vd x) { return (x[0] + x[2]) + (x[1] + x[3]); }
#else
DP_MOE_INLINE float reduceAdd(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
DP_MOE_INLINE float reduceMax(vf x) {
  x = max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1));
  return x[0] > x[1] ? x[0] : x[1];
}
DP_MOE_INLINE double reduceAdd(vd x) { return x[0] + x[1]; }
#endif

}  // namespace dp_moe::DP_MOE_ISA
