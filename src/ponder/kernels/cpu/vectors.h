// Vectors of the machine's natural width, in the compiler's own vector types: the same source is AVX-512, AVX2, SSE or
// NEON. A vector wider than the registers is many times slower than one that fits, so W follows the target.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef uint16_t bf16;  // the upper half of a float

#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W)));

template <class V, class T> static inline V load(const T* at) {
  V v;
  memcpy(&v, at, sizeof v);
  return v;
}
template <class V, class T> static inline void store(T* at, V v) { memcpy(at, &v, sizeof v); }

static inline vf splat(float x) { return x - vf{}; }
static inline vu splat(uint32_t x) { return x + vu{}; }
static inline vi lanes() {
  vi v;
  for (int i = 0; i < W; i++) v[i] = i;
  return v;
}
static inline vf larger(vf a, vf b) { return a > b ? a : b; }

static inline float sum(vf v) {  // in one fixed order
  float x[W];
  store(x, v);
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) x[i] += x[i + half];
  return x[0];
}
static inline float largest(vf v) {
  float x[W];
  store(x, v);
  for (int i = 1; i < W; i++) x[0] = x[i] > x[0] ? x[i] : x[0];
  return x[0];
}

static inline float widen(bf16 x) {
  uint32_t bits = (uint32_t)x << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}
static inline bf16 narrow(float x) {  // round to nearest even; a NaN stays one
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
static inline vh narrow(vf x) {
#if defined(__AVX512BF16__)
  if constexpr (W == 16) return (vh)_mm512_cvtneps_pbh((__m512)x);
#endif
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  vu nan = (vu)(x != x);
  return __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0), vh);
}

// e^x to about 2 units in the last place; 0 and infinity at the ends stay finite, NaN stays NaN.
static inline vf exponential(vf x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  x = x > 88.0f ? splat(88.0f) : x;
  const float magic = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer
  vf n = (x * 1.44269504f + magic) - magic;
  vf r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
}

// 2^x of x ≤ 0, to 3 parts in 10^6: what becomes bfloat16 needs no more. 0 stays above 10^-38, NaN stays NaN.
static inline vf power_of_two(vf x) {
  x = x < -125.0f ? splat(-125.0f) : x;
  const vf shifted = x + 12582912.0f;  // 1.5 x 2^23: the lowest bits are the nearest integer
  const vf r = x - (shifted - 12582912.0f);
  vf p = r * 9.58255e-3f + 5.590567e-2f;
  p = p * r + 2.4024099e-1f;
  p = p * r + 6.9312428e-1f;
  p = p * r + 1.0f;
  return (vf)((vu)p + ((vu)shifted << 23));
}

// How two pairs meet: acc += x[0] w[0] + x[1] w[1], lane by lane. x: bfloat16; Pair: what holds the weights.
struct Widened {
  struct Pair {
    vf first, second;
  };
  static inline vf dot(vf acc, vu x, Pair w) {
    acc += (vf)(x << 16) * w.first;
    return acc + (vf)(x & 0xffff0000u) * w.second;
  }
  static inline vf dot(vf acc, vu x, vu w) { return dot(acc, x, Pair{(vf)(w << 16), (vf)(w & 0xffff0000u)}); }
};
#if defined(__AVX512BF16__)
struct Dotted {
  typedef vu Pair;
  static inline vf dot(vf acc, vu x, vu w) { return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, (__m512bh)w); }
};
#endif

static inline uint32_t pair_at(const bf16* at) {
  uint32_t pair;
  memcpy(&pair, at, 4);
  return pair;
}
