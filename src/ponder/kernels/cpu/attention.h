// Attention of a few query rows over pages of 16 tokens.
//
// One key/value head of one page is 32 d numbers: keys [d/2][16][2], then values [8][d][2], so that both are what dot
// products, and tiles, take as their right side. Contexts are read in blocks of BLOCK pages from position 0 on, with a
// running maximum (arXiv 2205.14135, section 3.1): which rows are computed together changes no bit of any.
#pragma once
#include <cmath>

#include "products.h"

constexpr int PAGE = 16, BLOCK = 16, TOKENS = PAGE * BLOCK, ROWS = 32, WIDEST = 256, ABREAST = 2;

// What one thread works on.
struct alignas(64) Bench {
  float scores[ROWS][TOKENS + 16];
  float sums[ROWS][WIDEST];  // of weighted values
  float top[ROWS], mass[ROWS];
  bf16 queries[ROWS][WIDEST + 32];
  bf16 weights[ROWS][TOKENS + 32];
  int seen[ROWS];  // tokens that a row may look at, from position 0
  bf16* panels() { return (bf16*)(this + 1); }  // room behind: ABREAST panels as bfloat16
};

struct Pages {
  const bf16* base;  // of this layer and key/value head in page 0
  long stride;
  const int* table;
  int d;
  const bf16* keys(int at) const { return base + table[at] * stride; }
  const bf16* values(int at) const { return keys(at) + PAGE * d; }
};

// Pages first … last - 1 of a context, at most BLOCK of them. While one block is worked on, the one that this thread
// takes next is on its way from memory, page by page.
struct Block {
  Pages pages;
  int first, last;
  int count() const { return last - first; }
  // A part of 32 dimensions of one page's keys, or as many bytes of its values.
  void announce_part(int at, bool values, int part) const {
    if (first + at >= last) return;
    announce<16, 2>((values ? pages.values(first + at) : pages.keys(first + at)) + part * PAGE * 32);
  }
  void announce_half(int at, bool values) const {
    for (int part = 0; part < pages.d / 32; part++) announce_part(at, values, part);
  }
};

// Vectors ------------------------------------------------------------------------------------------------------------

template <class Dot, int R> static inline void score_page(Bench& b, int row, const bf16* keys, int d, int column) {
  constexpr int V = PAGE / W, CHAINS = W == 16 ? 4 : 2;  // sums that do not wait for one another
  vf acc[R][V][CHAINS] = {};
  for (int i = 0; i < d / 2; i += CHAINS)
    for (int c = 0; c < CHAINS; c++)
      for (int v = 0; v < V; v++) {
        vu pairs = load<vu>(keys + (i + c) * 2 * PAGE + v * 2 * W);
        for (int r = 0; r < R; r++)
          acc[r][v][c] = Dot::dot(acc[r][v][c], splat(pair_at(b.queries[row + r] + 2 * (i + c))), pairs);
      }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) {
      vf total = acc[r][v][0] + acc[r][v][1];
      if constexpr (CHAINS == 4) total += acc[r][v][2] + acc[r][v][3];
      store(b.scores[row + r] + column + v * W, total);
    }
}

template <class Dot> static void score_vectors(Bench& b, int rows, const Block& now, const Block& next) {
  const auto [pages, first, last] = now;
  for (int at = first; at < last; at++) {
    const bf16* keys = pages.keys(at);
    next.announce_half(at - first, false);
    const int column = (at - first) * PAGE;
    int row = 0;
    if constexpr (W == 16)
      for (; row + 4 <= rows; row += 4) score_page<Dot, 4>(b, row, keys, pages.d, column);
    for (; row + 2 <= rows; row += 2) score_page<Dot, 2>(b, row, keys, pages.d, column);
    if (row < rows) score_page<Dot, 1>(b, row, keys, pages.d, column);
  }
}

template <class Dot, int R, int V>
static inline void mix_columns(Bench& b, int row, const Block& now, const Block& next, int column) {
  const auto [pages, first, last] = now;
  vf acc[R][V];
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) acc[r][v] = load<vf>(b.sums[row + r] + column + v * W);
  for (int at = first; at < last; at++) {
    const bf16* values = pages.values(at) + column * 2;
    if (!column && !row) next.announce_half(at - first, true);
    for (int i = 0; i < PAGE; i += 2, values += 2 * pages.d) {
      vu x[R];
      for (int r = 0; r < R; r++) x[r] = splat(pair_at(b.weights[row + r] + (at - first) * PAGE + i));
      for (int v = 0; v < V; v++) {
        vu pairs = load<vu>(values + v * 2 * W);
        for (int r = 0; r < R; r++) acc[r][v] = Dot::dot(acc[r][v], x[r], pairs);
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int v = 0; v < V; v++) store(b.sums[row + r] + column + v * W, acc[r][v]);
}

template <class Dot, int R> static inline void mix_rows(Bench& b, int row, const Block& now, const Block& next) {
  constexpr int V = W == 16 ? 4 : 8 / R;
  const int d = now.pages.d;
  int column = 0;
  for (; column + V * W <= d; column += V * W) mix_columns<Dot, R, V>(b, row, now, next, column);
  for (; column < d; column += W) mix_columns<Dot, R, 1>(b, row, now, next, column);
}

template <class Dot> static void mix_vectors(Bench& b, int rows, const Block& now, const Block& next) {
  int row = 0;
  if constexpr (W == 16)
    for (; row + 4 <= rows; row += 4) mix_rows<Dot, 4>(b, row, now, next);
  for (; row + 2 <= rows; row += 2) mix_rows<Dot, 2>(b, row, now, next);
  if (row < rows) mix_rows<Dot, 1>(b, row, now, next);
}

// Tiles --------------------------------------------------------------------------------------------------------------

#if defined(__AMX_BF16__)
static void score_tiles(Bench& b, int rows, const Block& now, const Block& next) {
  const auto [pages, first, last] = now;
  constexpr long Q = sizeof b.queries[0], S = sizeof b.scores[0];
  const bool two = rows > 16;
  shape_tiles(32, rows);
  for (int at = first; at < last; at += 2) {
    // A page beyond the end is the last one again, into columns that nobody reads.
    const bf16 *keys = pages.keys(at), *second = pages.keys(at + 1 < last ? at + 1 : at);
    float* to = b.scores[0] + (at - first) * PAGE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int i = 0; i < pages.d; i += 32) {
      next.announce_part(at - first, false, i / 32);
      _tile_loadd(4, b.queries[0] + i, Q);
      _tile_loadd(6, keys + i * PAGE, 64);
      _tile_dpbf16ps(0, 4, 6);
      next.announce_part(at - first + 1, false, i / 32);
      _tile_loadd(7, second + i * PAGE, 64);
      _tile_dpbf16ps(1, 4, 7);
      if (!two) continue;
      _tile_loadd(5, b.queries[16] + i, Q);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, S);
    _tile_stored(1, to + PAGE, S);
    if (two) {
      _tile_stored(2, to + 16 * (S / 4), S);
      _tile_stored(3, to + 16 * (S / 4) + PAGE, S);
    }
  }
}

static void mix_tiles(Bench& b, int rows, const Block& now, const Block& next) {
  const auto [pages, first, last] = now;
  constexpr long P = sizeof b.weights[0], O = sizeof b.sums[0];
  const int d = pages.d;
  const bool two = rows > 16;
  shape_tiles(PAGE, rows);
  for (int column = 0; column < d; column += 32) {
    float *high = b.sums[0] + column, *low = b.sums[16] + column;
    _tile_loadd(0, high, O);
    _tile_loadd(1, high + 16, O);
    if (two) {
      _tile_loadd(2, low, O);
      _tile_loadd(3, low + 16, O);
    }
    for (int at = first; at < last; at++) {
      const bf16* values = pages.values(at) + column * 2;
      next.announce_part(at - first, true, column / 32);
      _tile_loadd(4, b.weights[0] + (at - first) * PAGE, P);
      _tile_loadd(6, values, d * 4);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, values + 32, d * 4);
      _tile_dpbf16ps(1, 4, 7);
      if (!two) continue;
      _tile_loadd(5, b.weights[16] + (at - first) * PAGE, P);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, high, O);
    _tile_stored(1, high + 16, O);
    if (two) {
      _tile_stored(2, low, O);
      _tile_stored(3, low + 16, O);
    }
  }
}
#endif

// The same for all ---------------------------------------------------------------------------------------------------

// Scores of a block → weights, under the running maximum; what was summed before is scaled to it. `scale` turns scores
// into powers of two.
static inline void soften(Bench& b, int row, int first_token, int tokens, int d, float scale) {
  const float* scores = b.scores[row];
  bf16* weights = b.weights[row];
  const int seen = b.seen[row] - first_token < tokens ? b.seen[row] - first_token : tokens;
  const int full = seen > 0 ? seen / W * W : 0, whole = seen > 0 ? (seen + W - 1) / W * W : 0;
  for (int i = whole; i < tokens; i += W) store(weights + i, vh{});
  if (seen <= 0) return;
  vf most = splat(b.top[row]);
  for (int i = 0; i < full; i += W) most = larger(most, load<vf>(scores + i));
  if (full < whole) most = larger(most, lanes() + full < seen ? load<vf>(scores + full) : splat(-INFINITY));
  const float top = largest(most), zero = top * scale;
  const float shrink = power_of_two(splat(b.top[row] * scale - zero))[0];
  vf mass = {};
  for (int i = 0; i < whole; i += W) {
    vf p = power_of_two(load<vf>(scores + i) * scale - zero);
    if (i == full) p = lanes() + i < seen ? p : vf{};
    vh rounded = narrow(p);
    store(weights + i, rounded);
    mass += (vf)(__builtin_convertvector(rounded, vu) << 16);
  }
  b.mass[row] = b.mass[row] * shrink + sum(mass);
  b.top[row] = top;
  if (shrink != 1.0f)
    for (int i = 0; i < d; i += W) store(b.sums[row] + i, load<vf>(b.sums[row] + i) * shrink);
}

static inline void begin_attention(Bench& b, int rows, int d) {
  for (int row = 0; row < rows; row++) {
    b.top[row] = -INFINITY;
    b.mass[row] = 0;
    memset(b.sums[row], 0, d * sizeof(float));
  }
}

enum Kernel { PORTABLE, AVX512, AMX };

// The rows on the bench against the pages first … last - 1. `after`: what this thread reads then.
static void attend(Kernel kernel, Bench& b, int rows, const Pages& pages, int first, int last, float scale,
                   const Block& after) {
  const auto block = [&](int begin) { return Block{pages, begin, begin + BLOCK < last ? begin + BLOCK : last}; };
  for (int begin = first; begin < last; begin += BLOCK) {
    const Block now = block(begin), next = now.last < last ? block(now.last) : after;
#if defined(__AMX_BF16__)
    if (kernel == AMX) score_tiles(b, rows, now, next);
#endif
#if defined(__AVX512BF16__)
    if (kernel == AVX512) score_vectors<Dotted>(b, rows, now, next);
#endif
    if (kernel == PORTABLE) score_vectors<Widened>(b, rows, now, next);
    for (int i = now.count(); i < next.count(); i++) next.announce_half(i, false);
    for (int row = 0; row < rows; row++) soften(b, row, begin * PAGE, now.count() * PAGE, pages.d, scale);
#if defined(__AMX_BF16__)
    if (kernel == AMX) mix_tiles(b, rows, now, next);
#endif
#if defined(__AVX512BF16__)
    if (kernel == AVX512) mix_vectors<Dotted>(b, rows, now, next);
#endif
    if (kernel == PORTABLE) mix_vectors<Widened>(b, rows, now, next);
    for (int i = now.count(); i < next.count(); i++) next.announce_half(i, true);
  }
}
