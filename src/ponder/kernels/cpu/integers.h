// Products of integers: rows rounded to 8 bits on the way, a scale for each 32 inputs, times weights of 4 to 8 bits.
//
// The sums within a group are exact; then float32: total = (sum x the weights' scale) x the row's scale + total, by one
// fused multiplication and addition, and the same for offsets. Every processor gives the same bits, whatever the rows.
#pragma once
#include "grouped.h"

#if defined(__AVX2__) && defined(__FMA__)
#define INTEGER_PRODUCTS

constexpr int TOGETHER = 32;  // rows that are rounded at a time

static inline vf multiply_add(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}

// Numbers of W outputs, 4 inputs each, unsigned, times int8: sums in 32 bits. Where the processor has no such
// instruction, pairs meet in 16 bits: 8 bits are then taken as signed, or two products would not fit.
template <int BITS> struct Integers {
#if defined(__AVX512VNNI__)
  static constexpr bool SIGNED = false;
  static inline vi add(vi sum, vu w, vi x) { return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x); }
  static inline vi total(vi sum) { return sum; }
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
  static constexpr bool SIGNED = false;
  static inline vi add(vi sum, vu w, vi x) { return (vi)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x); }
  static inline vi total(vi sum) { return sum; }
#else
  static constexpr bool SIGNED = BITS == 8;
#if defined(__AVX512F__)
  static inline vi pairs(vu w, vi x) {
    if constexpr (!SIGNED) return (vi)_mm512_maddubs_epi16((__m512i)w, (__m512i)x);
    const __m512i q = (__m512i)(w ^ 0x80808080u);
    const __m512i turned = _mm512_mask_sub_epi8((__m512i)x, _mm512_movepi8_mask(q), _mm512_setzero_si512(), (__m512i)x);
    return (vi)_mm512_maddubs_epi16(_mm512_abs_epi8(q), turned);
  }
  static inline vi sixteens(vi a, vi b) { return (vi)_mm512_add_epi16((__m512i)a, (__m512i)b); }
  static inline vi widened(vi a) { return (vi)_mm512_madd_epi16((__m512i)a, _mm512_set1_epi16(1)); }
#else
  static inline vi pairs(vu w, vi x) {
    if constexpr (!SIGNED) return (vi)_mm256_maddubs_epi16((__m256i)w, (__m256i)x);
    const __m256i q = (__m256i)(w ^ 0x80808080u);
    return (vi)_mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8((__m256i)x, q));
  }
  static inline vi sixteens(vi a, vi b) { return (vi)_mm256_add_epi16((__m256i)a, (__m256i)b); }
  static inline vi widened(vi a) { return (vi)_mm256_madd_epi16((__m256i)a, _mm256_set1_epi16(1)); }
#endif
  // 16 products of 4 bits and 8 fit 16 bits: those of a group.
  static inline vi add(vi sum, vu w, vi x) {
    return BITS == 4 ? sixteens(sum, pairs(w, x)) : sum + widened(pairs(w, x));
  }
  static inline vi total(vi sum) { return BITS == 4 ? widened(sum) : sum; }
#endif
};

// Rows of a product, rounded.
struct RoundedRows {
  long K;
  int8_t* q;       // (rows, K)
  float* scales;   // (rows, K / GROUP)
  float* offsets;  // (rows, K / GROUP): scale x sum of the group
  int* sums;       // (rows, K / 16)

  RoundedRows(void* room, long K) : K(K), q((int8_t*)room) {
    scales = (float*)(q + TOGETHER * K), offsets = scales + TOGETHER * K / GROUP;
    sums = (int*)(offsets + TOGETHER * K / GROUP);
  }
  static constexpr long bytes(long K) { return TOGETHER * (K + K / GROUP * 16); }

  void round(const bf16* a, int row) {
    for (long g = 0; g < K / GROUP; g++) {
      constexpr int V = GROUP / W;
      vf x[V];
      vi most = {};  // sizes as bits: what is not a number is the largest
      for (int v = 0; v < V; v++) {
        const vu bits = __builtin_convertvector(load<vh>(a + g * GROUP + v * W), vu) << 16;
        const vi size = (vi)(bits & 0x7fffffffu);
        most = size > most ? size : most;
        x[v] = (vf)bits;
      }
      const int32_t top = largest_of(most);
      float largest;
      memcpy(&largest, &top, 4);
      const float by = largest > 1e-30f && largest < INFINITY ? 127.0f / largest : 0.0f;
      const float scale = by || largest != largest || largest == INFINITY ? largest / 127.0f : 0.0f;
      int8_t* to = q + row * K + g * GROUP;
      int both = 0;
      for (int part = 0; part < 2; part++) {
        int sum = 0;
        for (int v = part * V / 2; v < (part + 1) * V / 2; v++) {
          const vi n = (vi)(x[v] * by + 12582912.0f) - 0x4b400000;  // 1.5 x 2^23: adding it rounds to an integer
          store_bytes(to + v * W, n);
          sum += total(n);
        }
        sums[row * (K / 16) + g * 2 + part] = sum, both += sum;
      }
      scales[row * (K / GROUP) + g] = scale, offsets[row * (K / GROUP) + g] = scale * (float)both;
    }
  }

 private:
#if defined(__AVX512F__)
  static inline int total(vi n) { return _mm512_reduce_add_epi32((__m512i)n); }
  static inline int largest_of(vi n) { return _mm512_reduce_max_epi32((__m512i)n); }
#else
  static inline int total(vi n) { return reduced(n, [](__m128i a, __m128i b) { return _mm_add_epi32(a, b); }); }
  static inline int largest_of(vi n) { return reduced(n, [](__m128i a, __m128i b) { return _mm_max_epi32(a, b); }); }
  template <class Two> static inline int reduced(vi n, Two two) {
    __m128i x = two(_mm256_castsi256_si128((__m256i)n), _mm256_extracti128_si256((__m256i)n, 1));
    x = two(x, _mm_shuffle_epi32(x, 0x4e));
    return _mm_cvtsi128_si32(two(x, _mm_shuffle_epi32(x, 0xb1)));
  }
#endif
  static inline void store_bytes(int8_t* to, vi n) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)n));
#else
    const __m128i low = _mm256_castsi256_si128((__m256i)n), high = _mm256_extracti128_si256((__m256i)n, 1);
    const __m128i words = _mm_packs_epi32(low, high);
    _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
#endif
  }
};

// R rounded rows, the first of them `at`, times a panel; they are rows `row` … of the product.
template <class G, int R>
static inline void integer_block(const Product& p, const RoundedRows& a, int at, int row, int panel) {
  typedef Integers<G::BITS> Dot;
  constexpr int V = PANEL / W, HALF = V / 2;
  constexpr bool BIASED = !G::OFFSETS && !Dot::SIGNED;
  const long groups = a.K / GROUP;
  const char* group = (const char*)p.panels + panel * groups * G::BYTES;
  const int8_t* q = a.q + at * a.K;
  const float *scales = a.scales + at * groups, *offsets = a.offsets + at * groups;
  const int* sums = a.sums + at * groups * 2;
  vf total[HALF][R][2] = {};
  for (long g = 0; g < groups; g++, group += G::BYTES, q += GROUP) {
    announce<(G::BYTES + 63) / 64, 1>(group + 2 * G::BYTES);
    const half* own = (const half*)group;
    for (int v = 0; v < HALF; v++)
      for (int part = 0; part < GROUP; part += G::PART) {
        vi sum[R][2];
        for (int r = 0; r < R; r++) {
          const int* s = sums + r * groups * 2 + g * 2 + part / 16;
          sum[r][0] = sum[r][1] = BIASED ? vi{} - 128 * (G::PART == 16 ? s[0] : s[0] + s[1]) : vi{};
        }
        for (int k = part; k < part + G::PART; k += 4) {
          vu w[2];
          G::read(group, k, v, w);
          for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, q + r * a.K + k, 4);
            const vi x = four - vi{};
            for (int i = 0; i < 2; i++) sum[r][i] = Dot::add(sum[r][i], w[i], x);
          }
        }
        for (int i = 0; i < 2; i++) {
          const int output = (v + i * HALF) * W;
          for (int r = 0; r < R; r++) {
            vf y = __builtin_convertvector(Dot::total(sum[r][i]), vf);
            if constexpr (G::SCALES > 0) y *= load_halves(own + part / G::PART * PANEL + output);
            total[v][r][i] = multiply_add(y, splat(scales[r * groups + g]), total[v][r][i]);
            if constexpr (G::OFFSETS) {
              const vf offset = load_halves(own + PANEL + output);
              total[v][r][i] = multiply_add(offset, splat(offsets[r * groups + g]), total[v][r][i]);
            }
          }
        }
      }
  }
  float out[PANEL] __attribute__((aligned(64)));
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) store(out + v * W, total[v % HALF][r][v / HALF]);
    finish(p, row + r, panel, out);
  }
}

template <class G, int R>
static void integer_panels(const Product& p, const RoundedRows& a, int at, int row, int first, int last) {
  for (int panel = first; panel < last; panel++) integer_block<G, R>(p, a, at, row, panel);
}

#if defined(__AMX_INT8__)
constexpr int FEW_FOR_TILES = 4;  // rows up to which dot products beat tiles of integers

// Sums of integers of `count` rows and the inputs that share a scale, the first of them g x GROUP + part.
template <class G>
static inline void sum_by_tiles(const RoundedRows& a, int count, const char* group, long g, int part,
                                int32_t (*sums)[PANEL], uint8_t (*numbers)[G::PART / 4][64]) {
  if constexpr (G::BITS == 8) {
    const char* w = group + G::NUMBERS + part / 4 * G::LINE;
    _tile_loadd(6, w, 128);
    _tile_loadd(7, w + 64, 128);
  } else {
    for (int k = 0; k < G::PART; k += 4) {
      vu two[2];
      G::read(group, part + k, 0, two);
      store(numbers[0][k / 4], two[0]), store(numbers[1][k / 4], two[1]);
    }
    _tile_loadd(6, numbers[0], 64);
    _tile_loadd(7, numbers[1], 64);
  }
  const int8_t* q = a.q + g * GROUP + part;
  _tile_loadd(4, q, a.K);
  _tile_zero(0);
  _tile_zero(1);
  _tile_dpbsud(0, 4, 6);
  _tile_dpbsud(1, 4, 7);
  if (count > 16) {
    _tile_loadd(5, q + 16 * a.K, a.K);
    _tile_zero(2);
    _tile_zero(3);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, sums[0], sizeof sums[0]);
  _tile_stored(1, sums[0] + 16, sizeof sums[0]);
  if (count > 16) {
    _tile_stored(2, sums[16], sizeof sums[0]);
    _tile_stored(3, sums[16] + 16, sizeof sums[0]);
  }
}

// `count` rounded rows times a panel, by tiles: bit for bit what integer_block gives. Tiles are a step ahead of the
// floats, so that neither waits for the other.
template <class G> static void integer_tiles(const Product& p, const RoundedRows& a, int count, int row, int panel) {
  constexpr int PARTS = GROUP / G::PART;
  const long groups = a.K / GROUP, all = groups * PARTS;
  const char* group = (const char*)p.panels + panel * groups * G::BYTES;
  alignas(64) float total[TOGETHER][PANEL];
  alignas(64) int32_t sums[2][TOGETHER][PANEL];
  alignas(64) uint8_t numbers[2][2][G::PART / 4][64];
  memset(total, 0, count * sizeof total[0]);
  const auto tiles = [&](long at) {
    const long g = at / PARTS;
    sum_by_tiles<G>(a, count, group + g * G::BYTES, g, at % PARTS * G::PART, sums[at % 2], numbers[at % 2]);
  };
  tiles(0);
  for (long at = 0; at < all; at++) {
    const long g = at / PARTS, part = at % PARTS;
    const half* own = (const half*)(group + g * G::BYTES);
    announce<(int)(G::BYTES / PARTS / 64), 1>((const char*)own + 3 * G::BYTES + part * G::BYTES / PARTS);
    if (at + 1 < all) tiles(at + 1);
    vf scale[2], offset[2];
    for (int i = 0; i < 2; i++) {
      if constexpr (G::SCALES > 0) scale[i] = load_halves(own + part * PANEL + i * W);
      if constexpr (G::OFFSETS) offset[i] = load_halves(own + PANEL + i * W);
    }
    const float *scales = a.scales + g, *offsets = a.offsets + g;
    const int* sum = a.sums + 2 * g + part;
    for (int r = 0; r < count; r++, scales += groups, offsets += groups, sum += 2 * groups) {
      const int bias = G::OFFSETS ? 0 : 128 * (PARTS == 2 ? sum[0] : sum[0] + sum[1]);
      for (int i = 0; i < 2; i++) {
        vi exact = load<vi>(sums[at % 2][r] + i * W);
        if constexpr (!G::OFFSETS) exact -= bias;
        vf y = __builtin_convertvector(exact, vf);
        if constexpr (G::SCALES > 0) y *= scale[i];
        y = multiply_add(y, splat(*scales), load<vf>(total[r] + i * W));
        if constexpr (G::OFFSETS) y = multiply_add(offset[i], splat(*offsets), y);
        store(total[r] + i * W, y);
      }
    }
  }
  finish_tiles(p, row, count, panel, total[0]);
}
#endif

// Rows [top, bottom) times panels [first, last). room: RoundedRows::bytes(K). tiles: whether they may be used; they are
// then shaped anew.
template <class G>
static void multiply_integers(const Product& p, int top, int bottom, int first, int last, void* room,
                              [[maybe_unused]] bool tiles) {
  constexpr int FEW = 4;  // panels that stay in the cache while all rows pass
  RoundedRows a(room, p.K);
  for (int begin = top; begin < bottom; begin += TOGETHER) {
    const int count = bottom - begin < TOGETHER ? bottom - begin : TOGETHER;
    for (int i = 0; i < count; i++) a.round(p.a + (begin + i) * p.lda, i);
#if defined(__AMX_INT8__)
    if (tiles && count > FEW_FOR_TILES) {
      shape_tiles(G::PART / 2, count);
      for (int panel = first; panel < last; panel++) integer_tiles<G>(p, a, count, begin, panel);
      continue;
    }
#endif
    const int step = count > 4 ? FEW : last - first;
    for (int some = first; some < last; some += step) {
      const int end = some + step < last ? some + step : last;
      int i = 0;
      for (; i + 4 <= count; i += 4) integer_panels<G, 4>(p, a, i, begin + i, some, end);
      if (count - i == 3) integer_panels<G, 3>(p, a, i, begin + i, some, end);
      if (count - i == 2) integer_panels<G, 2>(p, a, i, begin + i, some, end);
      if (count - i == 1) integer_panels<G, 1>(p, a, i, begin + i, some, end);
    }
  }
}
#endif
