// Rows as training keeps them, and how they are laid out for products: bfloat16, or float32 with ROWS_IN_FLOAT.
//
// The right side of a product over K stands in panels of 16 columns, [K / PAIR][16][PAIR]: what one word holds of a
// column stands together. The left side is rows.
#pragma once
#include "products.h"

#if defined(ROWS_IN_FLOAT)
typedef float element;
static inline vf wide(const float* at) { return load<vf>(at); }
static inline float widen(float x) { return x; }
static inline void put(float* at, vf v) { store(at, v); }
static inline void put(float* at, float v) { *at = v; }
#else
typedef bf16 element;
static inline vf wide(const bf16* at) { return (vf)(__builtin_convertvector(load<vh>(at), vu) << 16); }
static inline void put(bf16* at, vf v) { store(at, narrow(v)); }
static inline void put(bf16* at, float v) { *at = narrow(v); }
#endif
#if defined(__AMX_BF16__) && !defined(ROWS_IN_FLOAT)
#define TRAINING_TILES
#endif
constexpr int PAIR = 4 / sizeof(element);

// Rows r and r + 1 of 16 columns, rounded. store_right: into a panel of a product's right side.
struct Pair {
#if defined(ROWS_IN_FLOAT)
  vf even, odd;
  Pair(vf even, vf odd) : even(even), odd(odd) {}
  void store_rows(float* first, float* second) const {
    store(first, even);
    store(second, odd);
  }
  void store_right(float* panel, int row, int lane) const {
    store_rows(panel + row * 16 + lane, panel + row * 16 + 16 + lane);
  }
#elif defined(__AVX512BF16__) && defined(__AVX512BW__)
  __m512i rows;
  Pair(vf even, vf odd) : rows((__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even)) {}
  void store_rows(bf16* first, bf16* second) const {
    _mm256_storeu_si256((__m256i*)first, _mm512_castsi512_si256(rows));
    _mm256_storeu_si256((__m256i*)second, _mm512_extracti64x4_epi64(rows, 1));
  }
  void store_right(bf16* panel, int row, int lane) const {  // even and odd side by side
    alignas(64) static constexpr uint16_t ORDER[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    _mm512_storeu_si512(panel + row * 16 + lane * 2, _mm512_permutexvar_epi16(_mm512_load_si512(ORDER), rows));
  }
#else
  vh even, odd;
  Pair(vf even, vf odd) : even(narrow(even)), odd(narrow(odd)) {}
  void store_rows(bf16* first, bf16* second) const {
    store(first, even);
    store(second, odd);
  }
  void store_right(bf16* panel, int row, int lane) const {
    store((uint32_t*)(panel + row * 16 + lane * 2), __builtin_convertvector(even, vu) | (__builtin_convertvector(odd, vu) << 16));
  }
#endif
};

// 16 x 16 words.
static inline void transpose(const uint32_t* from, long ldf, uint32_t* to, long ldt) {
#if defined(__AVX512F__)
  __m512i r[16], t[16];
  for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(from + i * ldf);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int j = 0; j < 4; j++) {
    __m512i a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88), b = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    __m512i c = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd), e = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    _mm512_storeu_si512(to + j * ldt, _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_storeu_si512(to + (8 + j) * ldt, _mm512_shuffle_i32x4(a, b, 0xdd));
    _mm512_storeu_si512(to + (4 + j) * ldt, _mm512_shuffle_i32x4(c, e, 0x88));
    _mm512_storeu_si512(to + (12 + j) * ldt, _mm512_shuffle_i32x4(c, e, 0xdd));
  }
#elif defined(__AVX2__)
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 16; j += 8) {
      __m256 r[8], t[8];
      for (int x = 0; x < 8; x++) r[x] = _mm256_loadu_ps((const float*)(from + (i + x) * ldf + j));
      for (int x = 0; x < 8; x += 2) {
        t[x] = _mm256_unpacklo_ps(r[x], r[x + 1]);
        t[x + 1] = _mm256_unpackhi_ps(r[x], r[x + 1]);
      }
      for (int x = 0; x < 8; x += 4)
        for (int y = 0; y < 2; y++) {
          r[x + 2 * y] = _mm256_shuffle_ps(t[x + y], t[x + 2 + y], 0x44);
          r[x + 2 * y + 1] = _mm256_shuffle_ps(t[x + y], t[x + 2 + y], 0xee);
        }
      for (int x = 0; x < 4; x++) {
        _mm256_storeu_ps((float*)(to + (j + x) * ldt + i), _mm256_permute2f128_ps(r[x], r[4 + x], 0x20));
        _mm256_storeu_ps((float*)(to + (j + 4 + x) * ldt + i), _mm256_permute2f128_ps(r[x], r[4 + x], 0x31));
      }
    }
#else
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++) memcpy(to + j * ldt + i, from + i * ldf + j, 4);
#endif
}

// Rows (count, d) → panels of 16 rows: the right side of a product over d.
static inline void pack_across(const element* rows, int count, int d, element* to) {
  for (int row = 0; row < count; row += 16)
    for (int i = 0; i < d; i += 16 * PAIR)
      transpose((const uint32_t*)(rows + (long)row * d + i), d / PAIR, (uint32_t*)(to + (long)row * d + i * 16), 16);
}

// Rows (count, d) → panels of 16 columns, from row `first` of `total` on: the right side of a product over rows.
static inline void pack_along(const element* rows, int count, int d, element* to, long total, long first) {
  for (int row = 0; row < count; row += 2) {
    const element *even = rows + (long)row * d, *odd = even + d;
    for (int i = 0; i < d; i += W)
      Pair(wide(even + i), wide(odd + i)).store_right(to + (i / 16) * total * 16, first + row, i % 16);
  }
}

// Rows (count, d) → columns: (d, total) from column `first` on. The left side of a product over rows.
static inline void pack_columns(const element* rows, int count, int d, element* to, long total, long first) {
#if defined(ROWS_IN_FLOAT)
  for (int row = 0; row < count; row += 16)
    for (int i = 0; i < d; i += 16)
      transpose((const uint32_t*)(rows + (long)row * d + i), d, (uint32_t*)(to + i * total + first + row), total);
#else
  uint32_t pairs[16 * 16];
  for (int row = 0; row < count; row += 16)
    for (int i = 0; i < d; i += 32) {
      transpose((const uint32_t*)(rows + (long)row * d + i), d / 2, pairs, 16);
      for (int j = 0; j < 16; j++) {
        element* at = to + (i + 2 * j) * total + first + row;
        for (int c = 0; c < 16; c += W) {
          vu v = load<vu>(pairs + 16 * j + c);
          store(at + c, __builtin_convertvector(v & 0xffffu, vh));
          store(at + total + c, __builtin_convertvector(v >> 16, vh));
        }
      }
    }
#endif
}
