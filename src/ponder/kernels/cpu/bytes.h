// Packed weights as they are read: pairs of bfloat16, from bfloat16 or from int8.
#pragma once
#include "vectors.h"

constexpr int PANEL = 32;

// `LINES` lines of the cache will be read soon: into the first cache, or the second.
template <int LINES, int CACHE> static inline void announce(const void* at) {
  for (int i = 0; i < LINES; i++) __builtin_prefetch((const char*)at + i * 64, 0, CACHE == 1 ? 3 : 2);
}

template <int V> static inline void read_pairs(const bf16* line, int first, vu (&pairs)[V]) {
  for (int v = 0; v < V; v++) pairs[v] = load<vu>(line + (first + v) * 2 * W);
}

template <int V> static inline void read_pairs(const bf16* line, int first, Widened::Pair (&pairs)[V]) {
  for (int v = 0; v < V; v++) {
    const vu both = load<vu>(line + (first + v) * 2 * W);
    pairs[v] = {(vf)(both << 16), (vf)(both & 0xffff0000u)};
  }
}

// Two inputs of 32 outputs are a line of 64 int8 numbers. `place`: where one of them is.
#if defined(__AVX512VBMI__)
// Both inputs of an output are neighbours. Fours of outputs lie in the order 0 4 1 5 2 6 3 7, so that interleaving the
// halves of the bfloat16 numbers in each 128 bits gives the outputs 0 to 15, and 16 to 31, in order.
static inline int place(int output, int input) {
  const int four = output / 4;
  return (four < 4 ? 2 * four : 2 * four - 7) * 8 + output % 4 * 2 + input;
}

static const struct Magnitudes {  // the two bytes of 0 to 127 as bfloat16
  alignas(64) uint8_t low[128], high[128];
  Magnitudes() {
    for (int i = 0; i < 128; i++) low[i] = (uint8_t)narrow((float)i), high[i] = narrow((float)i) >> 8;
  }
} table;

template <int V> static inline void read_pairs(const int8_t* line, int first, vu (&pairs)[V]) {
  const __m512i all = _mm512_loadu_si512(line), size = _mm512_abs_epi8(all);
  const __m512i low = _mm512_permutex2var_epi8(_mm512_load_si512(table.low), size, _mm512_load_si512(table.low + 64));
  __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table.high), size, _mm512_load_si512(table.high + 64));
  high = _mm512_ternarylogic_epi32(high, all, _mm512_set1_epi8((char)0x80), 0xf8);  // high | all & sign
  const vu both[2] = {(vu)_mm512_unpacklo_epi8(low, high), (vu)_mm512_unpackhi_epi8(low, high)};
  for (int v = 0; v < V; v++) pairs[v] = both[first + v];
}

template <int V> static inline void read_pairs(const int8_t* line, int first, Widened::Pair (&pairs)[V]) {
  vu both[V];
  read_pairs<V>(line, first, both);
  for (int v = 0; v < V; v++) pairs[v] = {(vf)(both[v] << 16), (vf)(both[v] & 0xffff0000u)};
}
#else
// The first input of all outputs, then the second: each widens to float in two instructions.
static inline int place(int output, int input) { return input * PANEL + output; }

static inline vf widen(const int8_t* at) {  // by hand: compilers take the numbers out one by one
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)at)));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)at)));
#else
  vf y;
  for (int i = 0; i < W; i++) y[i] = at[i];
  return y;
#endif
}

template <int V> static inline void read_pairs(const int8_t* line, int first, Widened::Pair (&pairs)[V]) {
  for (int v = 0; v < V; v++) {
    const int8_t* at = line + (first + v) * W;
    pairs[v] = {widen(at), widen(at + PANEL)};
  }
}

template <int V> static inline void read_pairs(const int8_t* line, int first, vu (&pairs)[V]) {
  Widened::Pair floats[V];
  read_pairs<V>(line, first, floats);  // 7 bits: the lower half of a float is empty
  for (int v = 0; v < V; v++) pairs[v] = (vu)floats[v].first >> 16 | (vu)floats[v].second;
}
#endif

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
