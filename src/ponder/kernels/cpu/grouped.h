// Weights of 4 to 8 bits in groups of 32 inputs: w = scale q + offset. What GGUF files store, and what --quantize makes.
//
// A panel is, for each group, the 32 outputs' scales (and offsets) in half precision, then the numbers: for each four
// inputs, the 32 outputs' four numbers side by side, as products of integers take them (see integers.h). Numbers with
// offsets are unsigned; the others are 8 bits, kept as q + 128.
#pragma once
#include "products.h"

constexpr int GROUP = 32;  // inputs

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

// Where things are in a group of a panel. SCALES: of each output in a group, for as many equal parts of it; 0: an output
// has one scale for all of its inputs, in Matrix.scales.
template <int BITS_, int SCALES_, bool OFFSETS_> struct Grouped {
  static constexpr int BITS = BITS_, SCALES = SCALES_;
  static constexpr bool OFFSETS = OFFSETS_;
  static constexpr int PART = SCALES == 2 ? GROUP / 2 : GROUP;  // inputs that share a scale
  static constexpr long NUMBERS = (SCALES + OFFSETS) * PANEL * sizeof(half);
  static constexpr long LINE = PANEL * 4 * (BITS == 8 ? 8 : 4) / 8;  // bytes of four inputs
  static constexpr long HIGH = NUMBERS + GROUP / 4 * LINE;          // the fifth bits: 16 bytes for four inputs
  static constexpr long BYTES = HIGH + (BITS == 5 ? GROUP / 4 * 16 : 0);

  static void put(char* group, int output, int k, uint8_t q) {
    uint8_t* line = (uint8_t*)group + NUMBERS + k / 4 * LINE;
    if (BITS == 8)
      line[output * 4 + k % 4] = q;
    else
      line[output % 16 * 4 + k % 4] |= (q & 15) << output / 16 * 4;
    if (BITS == 5) {
      const int bit = output * 4 + k % 4;
      ((uint8_t*)group + HIGH + k / 4 * 16)[bit / 8] |= (q >> 4) << bit % 8;
    }
  }

  // Four inputs from k on, one in each byte: of the outputs of vectors v and v + V / 2.
  static inline void read(const char* group, int k, int v, vu (&to)[2]) {
    const char* line = group + NUMBERS + k / 4 * LINE;
    if constexpr (BITS == 8) {
      to[0] = load<vu>(line + v * 4 * W), to[1] = load<vu>(line + v * 4 * W + 64);
    } else {
      const vu both = load<vu>(line + v * 4 * W);
      to[0] = both & 0x0f0f0f0fu, to[1] = both >> 4 & 0x0f0f0f0fu;
      if constexpr (BITS == 5)
        for (int i = 0; i < 2; i++) to[i] |= fifth_bits(group + HIGH + k / 4 * 16, v * W + i * 16);
    }
  }

 private:
  static inline vu fifth_bits(const char* line, int output) {
#if defined(__AVX512BW__)
    uint64_t bits;
    memcpy(&bits, line + output / 2, 8);
    return (vu)_mm512_maskz_set1_epi8(bits, 16);
#else
    uint32_t bits;  // of eight outputs, W of them from `output` on
    memcpy(&bits, line + output / 8 * 4, 4);
    const vu four = splat(bits) >> (vu)((lanes() + output % 8) * 4) & 15;
    return (four * 0x00204081u & 0x01010101u) << 4;
#endif
  }
};

typedef Grouped<8, 0, false> Int8;
typedef Grouped<4, 1, true> Groups4;
typedef Grouped<5, 1, true> Groups5;
typedef Grouped<8, 2, false> Groups6;  // of 16 inputs each
typedef Grouped<8, 1, false> Groups8;

template <class Do> static inline auto with_form(Form form, Do task) {
  switch (form) {
    case Form::INT8: return task(Int8{});
    case Form::GROUPS4: return task(Groups4{});
    case Form::GROUPS5: return task(Groups5{});
    case Form::GROUPS6: return task(Groups6{});
    default: return task(Groups8{});
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

#if defined(__AVX512VBMI__)
static const struct Magnitudes {  // the two bytes of 0 to 127 as bfloat16
  alignas(64) uint8_t low[128], high[128];
  Magnitudes() {
    for (int i = 0; i < 128; i++) low[i] = (uint8_t)narrow((float)i), high[i] = narrow((float)i) >> 8;
  }
} table;

// Four inputs of 16 outputs of Int8, which are never -128, as pairs of bfloat16.
static inline void look_up(const char* line, bf16* to) {
  const __m512i all = _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi8((char)0x80));
  const __m512i size = _mm512_abs_epi8(all);
  const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(table.low), size, _mm512_load_si512(table.low + 64));
  __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table.high), size, _mm512_load_si512(table.high + 64));
  high = _mm512_ternarylogic_epi32(high, all, _mm512_set1_epi8((char)0x80), 0xf8);  // high | all & sign
  const __m512 even = (__m512)_mm512_unpacklo_epi8(low, high), odd = (__m512)_mm512_unpackhi_epi8(low, high);
  _mm512_storeu_ps(to, _mm512_shuffle_ps(even, odd, 0x88));
  _mm512_storeu_ps(to + 2 * PANEL, _mm512_shuffle_ps(even, odd, 0xdd));
}
#endif

// A panel as one of bfloat16 weights; of Int8, the numbers alone.
template <class G> static void expand(const char* at, int K, bf16* to) {
  constexpr int V = PANEL / W;
  for (int g = 0; g < K / GROUP; g++, at += G::BYTES) {
    announce<G::BYTES / 64, 1>(at + 2 * G::BYTES);
#if defined(__AVX512VBMI__)
    if constexpr (G::SCALES == 0) {
      for (int k = 0; k < GROUP; k += 4)
        for (int i = 0; i < 2; i++) look_up(at + k * PANEL + i * 64, to + (g * GROUP + k) * PANEL + i * 32);
      continue;
    }
#endif
    const half* scales = (const half*)at;
    for (int v = 0; v < V / 2; v++)
      for (int part = 0; part < GROUP; part += G::PART) {
        vf scale[2], offset[2];
        for (int i = 0; i < 2; i++) {
          const int output = (v + i * V / 2) * W;
          scale[i] = G::SCALES ? load_halves(scales + part / G::PART * PANEL + output) : splat(1.0f);
          offset[i] = G::OFFSETS ? load_halves(scales + PANEL + output) : scale[i] * -128.0f;
        }
        for (int k = part; k < part + G::PART; k += 4) {
          vu q[2];
          G::read(at, k, v, q);
          for (int i = 0; i < 2; i++) {
            vf x[4];
            for (int j = 0; j < 4; j++)
              x[j] = __builtin_convertvector((vi)(q[i] >> 8 * j & 0xff), vf) * scale[i] + offset[i];
            bf16* line = to + (g * GROUP + k) * PANEL + (v + i * V / 2) * 2 * W;
            store(line, as_pairs(x[0], x[1])), store(line + 2 * PANEL, as_pairs(x[2], x[3]));
          }
        }
      }
  }
}

static inline void expand_int8(const char* from, int K, bf16* to) { expand<Int8>(from, K, to); }
