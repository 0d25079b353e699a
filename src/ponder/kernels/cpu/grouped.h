// Weights in groups of 32 inputs, each with a scale and an offset of its own, as GGUF files store them: w = scale q +
// offset, q of 4 or 8 bits.
//
// A panel is, for each group, the 32 outputs' scales and (4 bits) offsets in half precision, then the numbers q, so that
// weights are read in one stream. q is exact in bfloat16: few rows meet q itself, group by group in float32, and the
// scale meets the sum. Many rows meet panels that became bfloat16 weights.
#pragma once
#include "products.h"
#if defined(__F16C__)
#include <immintrin.h>
#endif

constexpr int GROUP = 32;  // inputs
constexpr int FEW_ROWS = 8;  // that meet q itself

typedef uint16_t half;

static inline float widen_half(half x) {  // IEEE 754 binary16
  const uint32_t sign = (uint32_t)(x & 0x8000) << 16, rest = x & 0x7fff;
  uint32_t bits = sign | (rest + ((127 - 15) << 10)) << 13;
  float y;
  if (rest >= 0x7c00) bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
  memcpy(&y, &bits, 4);
  if (rest < 0x400) {
    y = (float)rest * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -y : y;
  }
  return y;
}

static inline half narrow_half(float x) {  // to nearest even; beyond the range infinity
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const half sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;
  if (bits >= 0x477ff000) return sign | 0x7c00;
  if (bits < 0x38800000) {  // below the least normal number
    float size;
    memcpy(&size, &bits, 4);
    return sign | (half)(size * 16777216.0f + 8388608.0f - 8388608.0f);
  }
  return sign | (half)((bits - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13);
}

static inline vf load_halves(const half* at) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at));
#elif defined(__AVX2__) && defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at));
#else
  vf y;
  for (int i = 0; i < W; i++) y[i] = widen_half(at[i]);
  return y;
#endif
}

// Bytes of a group of a panel: 64 of scales, 64 of offsets, the numbers.
template <int BITS> struct Grouped {
  static constexpr bool OFFSETS = BITS == 4;
  static constexpr long NUMBERS = OFFSETS ? 128 : 64, BYTES = NUMBERS + GROUP * PANEL * BITS / 8;
};

constexpr long group_bytes(int bits) { return bits == 4 ? Grouped<4>::BYTES : Grouped<8>::BYTES; }

// Inputs k and k + 1 of a group. 8 bits lie as bytes.h has them. With 4 bits a line of 64 bytes holds two such lines,
// in the lower and in the upper halves of its bytes: inputs k to k + 3.
#if defined(__AVX512VBMI__)
template <int BITS> static inline void read_group(const int8_t* numbers, int k, vu (&pairs)[2]) {
  if constexpr (BITS == 8) {
    read_pairs<2>(numbers + k * PANEL, 0, pairs);
    const __m512i all = _mm512_loadu_si512(numbers + k * PANEL), least = _mm512_set1_epi8(-128);
    const __mmask64 found = _mm512_cmpeq_epi8_mask(all, least);
    if (!__builtin_expect(found != 0, 0)) return;
    // -128, which rounding does not give and a file may hold, is 0xc300; read_pairs takes it for -0.
    const __m512i high = _mm512_maskz_set1_epi8(found, (char)0xc3), low = _mm512_setzero_si512();
    const __m512i first = _mm512_unpacklo_epi8(low, high), second = _mm512_unpackhi_epi8(low, high);
    pairs[0] |= (vu)first, pairs[1] |= (vu)second;
    return;
  }
  // The two bytes of 0 to 15 as bfloat16.
  const __m512i low = _mm512_broadcast_i32x4(_mm_setr_epi8(0, (char)0x80, 0, 0x40, (char)0x80, (char)0xa0, (char)0xc0,
                                                           (char)0xe0, 0, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70));
  const __m512i high = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41));
  __m512i both = _mm512_loadu_si512(numbers + k / 4 * 2 * PANEL);
  if (k % 4) both = _mm512_srli_epi16(both, 4);
  both = _mm512_and_si512(both, _mm512_set1_epi8(15));
  const __m512i l = _mm512_shuffle_epi8(low, both), h = _mm512_shuffle_epi8(high, both);
  pairs[0] = (vu)_mm512_unpacklo_epi8(l, h), pairs[1] = (vu)_mm512_unpackhi_epi8(l, h);
}

template <int BITS> static inline void read_group(const int8_t* numbers, int k, Widened::Pair (&pairs)[2]) {
  vu both[2];
  read_group<BITS>(numbers, k, both);
  for (int v = 0; v < 2; v++) pairs[v] = {(vf)(both[v] << 16), (vf)(both[v] & 0xffff0000u)};
}
#else
template <int BITS, class Pair> static inline void read_group(const int8_t* numbers, int k, Pair (&pairs)[PANEL / W]) {
  if constexpr (BITS == 8) return read_pairs<PANEL / W>(numbers + k * PANEL, 0, pairs);
  const uint8_t* line = (const uint8_t*)numbers + k / 4 * 2 * PANEL;
  int8_t some[2 * PANEL];
  for (int i = 0; i < 2 * PANEL; i++) some[i] = line[i] >> k % 4 * 2 & 15;
  read_pairs<PANEL / W>(some, 0, pairs);
}
#endif

// R rows times P panels. sums: of the inputs of each group, for each row.
template <class Dot, int BITS, int R, int P>
static inline void grouped_block(const Product& p, int row, int panel, const float* const (&sums)[R]) {
  typedef Grouped<BITS> Panel;
  constexpr int V = PANEL / W;
  const long stride = p.K / GROUP * Panel::BYTES;
  const int8_t* at = (const int8_t*)p.panels + panel * stride;
  vf total[P][R][V] = {};
  for (int g = 0; g < p.K / GROUP; g++, at += Panel::BYTES) {
    vf part[P][R][V] = {};
    const bf16* a = p.a + row * p.lda + g * GROUP;
    for (int j = 0; j < P; j++) announce<Panel::BYTES / 64, 1>((const char*)at + j * stride + 2 * Panel::BYTES);
    for (int k = 0; k < GROUP; k += 2) {
      vu x[R];
      for (int r = 0; r < R; r++) x[r] = splat(pair_at(a + r * p.lda + k));
      for (int j = 0; j < P; j++) {
        typename Dot::Pair pairs[V];
        read_group<BITS>(at + j * stride + Panel::NUMBERS, k, pairs);
        for (int v = 0; v < V; v++)
          for (int r = 0; r < R; r++) part[j][r][v] = Dot::dot(part[j][r][v], x[r], pairs[v]);
      }
    }
    for (int j = 0; j < P; j++)
      for (int v = 0; v < V; v++) {
        const half* scales = (const half*)(at + j * stride) + v * W;
        const vf scale = load_halves(scales);
        for (int r = 0; r < R; r++) total[j][r][v] += part[j][r][v] * scale;
        if constexpr (Panel::OFFSETS) {
          const vf offset = load_halves(scales + PANEL);
          for (int r = 0; r < R; r++) total[j][r][v] += offset * sums[r][g];
        }
      }
  }
  float out[PANEL] __attribute__((aligned(64)));
  for (int j = 0; j < P; j++)
    for (int r = 0; r < R; r++) {
      for (int v = 0; v < V; v++) store(out + v * W, total[j][r][v]);
      finish(p, row + r, panel + j, out);
    }
}

template <class Dot, int BITS, int R>
static void grouped_rows(const Product& p, int row, int first, int last, float* room) {
  const float* sums[R];
  for (int r = 0; r < R; r++) {
    sums[r] = room + r * (p.K / GROUP);
    for (int g = 0; g < p.K / GROUP; g++) {
      float sum = 0;
      for (int k = 0; k < GROUP; k++) sum += widen(p.a[(row + r) * p.lda + g * GROUP + k]);
      room[r * (p.K / GROUP) + g] = sum;
    }
  }
  constexpr int P = W == 16 && R < 3 ? 2 : 1;
  int panel = first;
  for (; panel + P <= last; panel += P) grouped_block<Dot, BITS, R, P>(p, row, panel, sums);
  for (; panel < last; panel++) grouped_block<Dot, BITS, R, 1>(p, row, panel, sums);
}

// Up to FEW_ROWS rows times panels [first, last), four at a time. room: for 4 x K / GROUP numbers.
template <class Dot, int BITS>
static void multiply_groups(const Product& p, int top, int bottom, int first, int last, float* room) {
  for (; bottom - top > 4; top += 4) grouped_rows<Dot, BITS, 4>(p, top, first, last, room);
  switch (bottom - top) {
    case 1: return grouped_rows<Dot, BITS, 1>(p, top, first, last, room);
    case 2: return grouped_rows<Dot, BITS, 2>(p, top, first, last, room);
    case 3: return grouped_rows<Dot, BITS, 3>(p, top, first, last, room);
    default: return grouped_rows<Dot, BITS, 4>(p, top, first, last, room);
  }
}

// Two rows of floats, rounded, as pairs of bfloat16: `even` in the lower halves.
static inline vu as_pairs(vf even, vf odd) {
#if defined(__AVX512BF16__)
  alignas(64) static const uint16_t alternate[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  return (vu)_mm512_permutexvar_epi16(_mm512_load_si512(alternate), both);
#endif
  return __builtin_convertvector(narrow(even), vu) | __builtin_convertvector(narrow(odd), vu) << 16;
}

// A panel of groups as one of bfloat16 weights.
template <int BITS> static void expand_groups(const int8_t* at, int K, bf16* to) {
  typedef Grouped<BITS> Panel;
  constexpr int V = PANEL / W;
  for (int g = 0; g < K / GROUP; g++, at += Panel::BYTES) {
    announce<Panel::BYTES / 64, 1>((const char*)at + 2 * Panel::BYTES);
    vf scale[V], offset[V];
    for (int v = 0; v < V; v++) {
      scale[v] = load_halves((const half*)at + v * W);
      offset[v] = Panel::OFFSETS ? load_halves((const half*)at + PANEL + v * W) : vf{};
    }
    for (int k = 0; k < GROUP; k += 2, to += 2 * PANEL) {
      vu pairs[V];
      read_group<BITS>(at + Panel::NUMBERS, k, pairs);
      for (int v = 0; v < V; v++) {
        const vf even = (vf)(pairs[v] << 16), odd = (vf)(pairs[v] & 0xffff0000u);
        store(to + v * 2 * W, as_pairs(even * scale[v] + offset[v], odd * scale[v] + offset[v]));
      }
    }
  }
}
