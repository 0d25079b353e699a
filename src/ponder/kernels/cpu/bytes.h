// Packed weights as they are read: pairs of bfloat16, from bfloat16 or from int8.
#pragma once
#include "vectors.h"

constexpr int PANEL = 32;

// `LINES` lines of the cache will be read soon: into the first cache, or the second.
template <int LINES, int CACHE> static inline void announce(const void* at) {
  for (int i = 0; i < LINES; i++) __builtin_prefetch((const char*)at + i * 64, 0, CACHE == 1 ? 3 : 2);
}

// Two inputs of 32 outputs are a line of 64 int8 numbers. Fours of outputs lie in the order 0 4 1 5 2 6 3 7, so that
// interleaving the halves of the bfloat16 numbers in each 128 bits gives the outputs 0 to 15, and 16 to 31, in order.
static inline int place(int output) {
  const int four = output / 4;
  return (four < 4 ? 2 * four : 2 * four - 7) * 8 + output % 4 * 2;
}

template <int V> static inline void read_pairs(const bf16* line, int first, vu (&pairs)[V]) {
  for (int v = 0; v < V; v++) pairs[v] = load<vu>(line + (first + v) * 2 * W);
}

typedef int8_t vb __attribute__((vector_size(2 * W)));
typedef int16_t vs __attribute__((vector_size(4 * W)));

#if defined(__AVX512VBMI__)
static const struct Magnitudes {  // the two bytes of 0 to 127 as bfloat16
  alignas(64) uint8_t low[128], high[128];
  Magnitudes() {
    for (int i = 0; i < 128; i++) low[i] = (uint8_t)narrow((float)i), high[i] = narrow((float)i) >> 8;
  }
} table;
#endif

template <int V> static inline void read_pairs(const int8_t* line, int first, vu (&pairs)[V]) {
#if defined(__AVX512VBMI__)
  if constexpr (V == 2) {
    const __m512i all = _mm512_loadu_si512(line), size = _mm512_abs_epi8(all);
    const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(table.low), size, _mm512_load_si512(table.low + 64));
    __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table.high), size, _mm512_load_si512(table.high + 64));
    high = _mm512_ternarylogic_epi32(high, all, _mm512_set1_epi8((char)0x80), 0xf8);  // high | all & sign
    pairs[0] = (vu)_mm512_unpacklo_epi8(low, high), pairs[1] = (vu)_mm512_unpackhi_epi8(low, high);
    return;
  }
#endif
  for (int v = 0; v < V; v++) {
    int8_t some[2 * W];
    for (int i = 0; i < W; i += 4) memcpy(some + 2 * i, line + place((first + v) * W + i), 8);
    const vi both = (vi)__builtin_convertvector(load<vb>(some), vs);
    const vf even = __builtin_convertvector(both << 16 >> 16, vf), odd = __builtin_convertvector(both >> 16, vf);
    pairs[v] = (vu)even >> 16 | (vu)odd;  // 7 bits: the lower half of a float is empty
  }
}

// A panel of int8 as one of bfloat16.
static inline void expand(const int8_t* from, int K, bf16* to) {
  constexpr int ALL = PANEL / W;
  for (int k = 0; k < K; k += 2, from += 2 * PANEL, to += 2 * PANEL) {
    announce<1, 1>((const char*)from + 2048);
    vu pairs[ALL];
    read_pairs<ALL>(from, 0, pairs);
    for (int v = 0; v < ALL; v++) store(to + v * 2 * W, pairs[v]);
  }
}
