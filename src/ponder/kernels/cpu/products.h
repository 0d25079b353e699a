// Matrix products: rows in bfloat16 times packed weights, accumulated in float32.
//
// A panel is 32 outputs of a weight (N, K): [K/2][32][2], so that one 32-bit lane holds two neighbouring inputs of one
// output. AMX tiles, AVX-512 dot products and plain vectors all read it as it lies. What a row's result is does not
// depend on the rows beside it: every path adds the inputs up in one order.
//
// Weights of fewer bits (see grouped.h) meet rows of integers (integers.h), or become panels of bfloat16 first.
#pragma once
#include "vectors.h"
#if defined(__AMX_BF16__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

constexpr int NEAR = 256;  // rows that stay in the cache while panels pass
constexpr int PANEL = 32;  // outputs

enum class Into { STORE, ADD, GATED };
// Of packed weights; kernels/fused.py: the same order.
enum class Form { BFLOAT16, INT8, GROUPS4, GROUPS5, GROUPS6, GROUPS8 };

constexpr int CHUNK = 64;  // inputs of INT8 panels that are bfloat16 at a time, where rows are few

static inline void expand_int8(const char* from, int K, bf16* to);  // of a panel (grouped.h)

struct Product {
  const bf16* a;  // (rows, K), row stride lda; up to a multiple of 16 rows may be read
  long lda;
  Form form;
  const void* panels;
  const float* scales;  // INT8: per output; else null
  int K, num_panels;
  Into into;
  const float* bias;  // per output, or null
  float* out;         // STORE, ADD: (rows, num_panels x 32), row stride ldo; up to a multiple of 16 rows are written
  long ldo;
  bf16* gated;  // GATED: (rows, num_panels x 16), row stride ldg; a panel is 16 gates, then their 16 values
  long ldg;
};

// Bytes of weights ahead of those in use that are asked for: they come from memory, and the processor's own guesses
// leave a third of its bandwidth unused. Dot products read panels abreast into the first cache, tiles in a row into the
// second.
constexpr long SOON = 1024, LATER = 8192;

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

static inline void finish(const Product& p, int row, int panel, const float* acc) {
  const float* scales = p.scales ? p.scales + panel * PANEL : nullptr;
  const auto at = [&](int i) { return scales ? load<vf>(acc + i) * load<vf>(scales + i) : load<vf>(acc + i); };
  if (p.into == Into::GATED) {
    bf16* to = p.gated + row * p.ldg + panel * 16;
    for (int i = 0; i < 16; i += W) {
      vf gate = at(i), value = at(16 + i);
      store(to + i, narrow(gate / (1.0f + exponential(-gate)) * value));
    }
    return;
  }
  float* to = p.out + row * p.ldo + panel * PANEL;
  for (int i = 0; i < PANEL; i += W) {
    vf y = at(i);
    if (p.bias) y += load<vf>(p.bias + panel * PANEL + i);
    if (p.into == Into::ADD) y += load<vf>(to + i);
    store(to + i, y);
  }
}

// R rows times V vectors of each of P panels, in registers.
template <class Dot, int R, int P, int V>
static inline void block(const Product& p, int row, int panel, int begin, float (*out)[R][PANEL]) {
  vf acc[P][R][V] = {};
  const bf16* a = p.a + row * p.lda;
  const bf16* w = (const bf16*)p.panels + (long)panel * p.K * PANEL;
  for (int k = 0; k < p.K; k += 2) {
    vu x[R];
    for (int r = 0; r < R; r++) x[r] = splat(pair_at(a + r * p.lda + k));
    for (int at = 0; at < P; at++) {
      const bf16* line = w + (long)at * p.K * PANEL + k * PANEL;
      if (!begin && k % 4 == 0) announce<4, 1>((const char*)line + SOON);
      typename Dot::Pair pairs[V];
      read_pairs<V>(line, begin / W, pairs);
      for (int v = 0; v < V; v++)
        for (int r = 0; r < R; r++) acc[at][r][v] = Dot::dot(acc[at][r][v], x[r], pairs[v]);
    }
  }
  for (int at = 0; at < P; at++)
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) store(out[at][r] + begin + v * W, acc[at][r][v]);
}

template <class Dot, int R, int P> static inline void rows_times_panels(const Product& p, int row, int panel) {
  // As many vectors at once as registers hold beside the inputs: 32 of them with AVX-512, else 16.
  constexpr int REGISTERS = W == 16 ? 16 : 8, ALL = PANEL / W;
  constexpr int V = ALL * R * P <= REGISTERS ? ALL : REGISTERS / (R * P) > 1 ? REGISTERS / (R * P) : 1;
  float out[P][R][PANEL] __attribute__((aligned(64)));
  for (int begin = 0; begin < PANEL; begin += V * W) block<Dot, R, P, V>(p, row, panel, begin, out);
  for (int at = 0; at < P; at++)
    for (int r = 0; r < R; r++) finish(p, row + r, panel + at, out[at][r]);
}

template <class Dot, int R> static void rows_times_all(const Product& p, int row, int first, int last) {
  constexpr int P = (W == 16 && R < 3) || (W == 8 && R == 1) ? 2 : 1;
  int panel = first;
  for (; panel + P <= last; panel += P) rows_times_panels<Dot, R, P>(p, row, panel);
  for (; panel < last; panel++) rows_times_panels<Dot, R, 1>(p, row, panel);
}

// Rows [top, bottom) times panels [first, last).
template <class Dot> static void multiply_vectors(const Product& p, int top, int bottom, int first, int last) {
  constexpr int FEW = 8;  // panels that stay in the cache while all rows pass
  const int step = bottom - top > 4 ? FEW : last - first;
  for (; first < last; first += step) {
    const int end = first + step < last ? first + step : last;
    int row = top;
    for (; row + 4 <= bottom; row += 4) rows_times_all<Dot, 4>(p, row, first, end);
    if (bottom - row == 3) rows_times_all<Dot, 3>(p, row, first, end);
    if (bottom - row == 2) rows_times_all<Dot, 2>(p, row, first, end);
    if (bottom - row == 1) rows_times_all<Dot, 1>(p, row, first, end);
  }
}

#if defined(__AMX_BF16__)
static inline bool tiles_permitted() {  // asks the system, once for the process
  const long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

struct __attribute__((packed, aligned(64))) TileShapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};
};

// Tiles 0-3: sums, 16 floats a row; 4, 5: rows; 6, 7: weights, keys or values. `inner`: inputs, or tokens, of tiles 4
// to 7. `rows`: of tiles 0 to 5; fewer are faster.
static inline void shape_tiles(int inner, int rows) {
  TileShapes shapes;
  for (int i = 0; i < 8; i++) {
    shapes.bytes[i] = i == 4 || i == 5 ? inner * 2 : 64;
    shapes.rows[i] = i >= 6 ? inner / 2 : rows < 16 ? rows : 16;
  }
  _tile_loadconfig(&shapes);
}

static inline void finish_tiles(const Product& p, int row, int rows, int panel, const float* sums) {
  for (int r = 0; r < rows; r++) finish(p, row + r, panel, sums + r * PANEL);
}

static inline bool adds_in_tiles(const Product& p) { return p.into != Into::GATED && !p.bias && !p.scales; }

// A panel of bfloat16 from input k on.
static inline const bf16* weights_at(const Product& p, int panel, int k) {
  return (const bf16*)p.panels + ((long)panel * p.K + k) * PANEL;
}

// The same of INT8: the next CHUNK inputs become bfloat16 in `room`, in the first cache, whenever k comes to them.
static inline const bf16* weights_at(const Product& p, int panel, int k, bf16* room) {
  const char* from = (const char*)p.panels + ((long)panel * p.K + k) * PANEL;
  if (k % CHUNK == 0) expand_int8(from, p.K - k < CHUNK ? p.K - k : CHUNK, room);
  announce<16, 2>(from + LATER / 2);
  return room + k % CHUNK * PANEL;
}

// 16 rows and two panels. FORM: BFLOAT16, or INT8, which passes through `room`.
template <Form FORM> static inline void tiles_16(const Product& p, int row, int rows, int panel, bf16* room) {
  const bf16* a = p.a + row * p.lda;
  float* out = p.out + row * p.ldo + panel * PANEL;
  const bool direct = adds_in_tiles(p);
  if (direct && p.into == Into::ADD) {
    _tile_loadd(0, out, p.ldo * 4);
    _tile_loadd(1, out + 16, p.ldo * 4);
    _tile_loadd(2, out + 32, p.ldo * 4);
    _tile_loadd(3, out + 48, p.ldo * 4);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int k = 0; k < p.K; k += 32) {
    const bf16 *w, *other;
    if constexpr (FORM == Form::INT8) {
      w = weights_at(p, panel, k, room), other = weights_at(p, panel + 1, k, room + CHUNK * PANEL);
    } else {
      w = weights_at(p, panel, k), other = weights_at(p, panel + 1, k);
      announce<32, 2>((const char*)w + LATER);
      announce<32, 2>((const char*)other + LATER);
    }
    _tile_loadd(4, a + k, p.lda * 2);
    _tile_loadd(6, w, 128);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + 32, 128);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, other, 128);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, other + 32, 128);
    _tile_dpbf16ps(3, 4, 7);
  }
  if (direct) {
    _tile_stored(0, out, p.ldo * 4);
    _tile_stored(1, out + 16, p.ldo * 4);
    _tile_stored(2, out + 32, p.ldo * 4);
    _tile_stored(3, out + 48, p.ldo * 4);
    return;
  }
  float sums[2][16][PANEL] __attribute__((aligned(64)));
  _tile_stored(0, sums[0][0], PANEL * 4);
  _tile_stored(1, sums[0][0] + 16, PANEL * 4);
  _tile_stored(2, sums[1][0], PANEL * 4);
  _tile_stored(3, sums[1][0] + 16, PANEL * 4);
  finish_tiles(p, row, rows, panel, sums[0][0]);
  finish_tiles(p, row, rows, panel + 1, sums[1][0]);
}

// Up to 32 rows and one panel. COLD: the panel comes from memory.
template <Form FORM, bool COLD>
static inline void tiles_32(const Product& p, int row, int rows, int panel, bf16* room) {
  const bf16* a = p.a + row * p.lda;
  float* out = p.out + row * p.ldo + panel * PANEL;
  const bool direct = adds_in_tiles(p), two = rows > 16;
  const long low = two ? 16 : 0;  // without a second half, the first is computed twice and the copy dropped
  if (direct && p.into == Into::ADD) {
    _tile_loadd(0, out, p.ldo * 4);
    _tile_loadd(1, out + 16, p.ldo * 4);
    _tile_loadd(2, out + low * p.ldo, p.ldo * 4);
    _tile_loadd(3, out + low * p.ldo + 16, p.ldo * 4);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int k = 0; k < p.K; k += 32) {
    const bf16* w;
    if constexpr (FORM == Form::INT8) {
      w = weights_at(p, panel, k, room);
    } else {
      w = weights_at(p, panel, k);
      if (COLD) announce<32, 2>((const char*)w + LATER);
    }
    _tile_loadd(6, w, 128);
    _tile_loadd(4, a + k, p.lda * 2);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + 32, 128);
    _tile_dpbf16ps(1, 4, 7);
    if (!two) continue;
    _tile_loadd(5, a + 16 * p.lda + k, p.lda * 2);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  if (direct) {
    _tile_stored(0, out, p.ldo * 4);
    _tile_stored(1, out + 16, p.ldo * 4);
    if (!two) return;
    _tile_stored(2, out + 16 * p.ldo, p.ldo * 4);
    _tile_stored(3, out + 16 * p.ldo + 16, p.ldo * 4);
    return;
  }
  float sums[32][PANEL] __attribute__((aligned(64)));
  _tile_stored(0, sums[0], PANEL * 4);
  _tile_stored(1, sums[0] + 16, PANEL * 4);
  if (two) {
    _tile_stored(2, sums[16], PANEL * 4);
    _tile_stored(3, sums[16] + 16, PANEL * 4);
  }
  finish_tiles(p, row, rows, panel, sums[0]);
}

template <Form FORM>
static void multiply_tiles(const Product& p, int top, int bottom, int first, int last, bf16* room) {
  for (int begin = top; begin < bottom; begin += NEAR) {
    const int end = begin + NEAR < bottom ? begin + NEAR : bottom;
    int panel = first;
    if (end - begin <= 16)
      for (; panel + 2 <= last; panel += 2) tiles_16<FORM>(p, begin, end - begin, panel, room);
    for (; panel < last; panel++) {
      tiles_32<FORM, true>(p, begin, end - begin < 32 ? end - begin : 32, panel, room);
      for (int row = begin + 32; row < end; row += 32)
        tiles_32<FORM, false>(p, row, end - row < 32 ? end - row : 32, panel, room);
    }
  }
}
#endif
