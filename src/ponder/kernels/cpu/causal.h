// Causal self-attention of packed documents for training, forward and backward, from the raw projections to the mixed
// values: queries and keys are normalised (Qwen3) and rotated on the way in. Scores are never held beyond a block and
// no mask is: a token sees from its document's first token on (arXiv 2205.14135, 2307.08691).
//
// Blocks of scores lie as (keys, queries): a query is a lane, so that maxima and sums over keys are vertical. A unit of
// work is one key/value head of one row of the batch with its query heads; nothing is shared between units, so that the
// result does not depend on the number of threads.
#pragma once
#include <cmath>
#include <cstdlib>
#include <new>

#include "rows.h"

namespace causal {

constexpr int BLOCK = 64;  // queries, and keys, at a time
constexpr float LOG2_E = 1.44269504f;
constexpr float HIDDEN = -1e30f;  // the score of what may not be seen

extern "C" struct Causal {  // kernels/training.py: the same fields in the same order
  int batch, tokens, heads, kv_heads, head_dim, tiles, threads;
  float eps;
  const element* qkv;  // (batch, tokens, (heads + 2 kv_heads) head_dim): q heads, k heads, v heads
  const float *q_weight, *k_weight;  // (head_dim), or null: no norms
  const float *cos, *sin;  // (batch, tokens, head_dim / 2)
  const int* starts;  // (batch, tokens): the first token that a token may see, never falling
  element* out;  // (batch, tokens, heads head_dim)
  float* masses;  // (batch, heads, tokens): log2 of the sum of exponentials
  const element* d_out;  // as out
  element* d_qkv;  // as qkv
  float *d_q_weight, *d_k_weight;  // (batch kv_heads, head_dim): each unit's share
};

// ---- Powers of two

// 2^r for |r| <= 1/2 as a polynomial, the largest relative error 2.6e-6.
constexpr float C0 = 0.999999261f, C1 = 0.693121815f, C2 = 0.240247455f, C3 = 0.0559178581f, C4 = 0.009570074f;

// 2^x to about 3e-6 of it, for x below 120; 0 far below.
static inline vf power(vf x) {
#if defined(__AVX512F__)
  const __m512 n = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const vf r = x - (vf)n;
#else
  x = x < -126.0f ? splat(-126.0f) : x;
  const float magic = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer
  const vf n = (x + magic) - magic, r = x - n;
#endif
  vf p = r * C4 + C3;
  p = p * r + C2;
  p = p * r + C1;
  p = p * r + C0;
#if defined(__AVX512F__)
  return (vf)_mm512_scalef_ps((__m512)p, n);
#else
  return p * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
#endif
}

// ---- Rows on their way in and out

// One head of one token, normalised and rotated.
static inline void turn(const element* x, const float* weight, const float* cos, const float* sin, int d, float eps,
                        element* to) {
  float scale = 1.0f;
  if (weight) {
    vf squares = {};
    for (int i = 0; i < d; i += W) squares += wide(x + i) * wide(x + i);
    scale = 1.0f / sqrtf(sum(squares) / d + eps);
  }
  const int half = d / 2;
  for (int i = 0; i < half; i += W) {
    vf a = wide(x + i), b = wide(x + half + i), c = load<vf>(cos + i), s = load<vf>(sin + i);
    if (weight) a *= scale * load<vf>(weight + i), b *= scale * load<vf>(weight + half + i);
    put(to + i, a * c - b * s);
    put(to + half + i, b * c + a * s);
  }
}

// The gradient of `turn`: g is that of its result (changed on the way), `to` that of x; adds to the weight's.
static inline void turn_back(float* g, const element* x, const float* weight, const float* cos, const float* sin, int d,
                             float eps, element* to, float* d_weight) {
  const int half = d / 2;
  for (int i = 0; i < half; i += W) {
    vf a = load<vf>(g + i), b = load<vf>(g + half + i), c = load<vf>(cos + i), s = load<vf>(sin + i);
    store(g + i, a * c + b * s);
    store(g + half + i, b * c - a * s);
  }
  if (weight) {
    vf squares = {}, dots = {};
    for (int i = 0; i < d; i += W) {
      vf v = wide(x + i);
      squares += v * v;
      dots += v * load<vf>(g + i) * load<vf>(weight + i);
    }
    const float mean = sum(squares) / d + eps, scale = 1.0f / sqrtf(mean), along = sum(dots) / (d * mean);
    for (int i = 0; i < d; i += W) {
      vf v = wide(x + i), each = load<vf>(g + i);
      store(d_weight + i, load<vf>(d_weight + i) + each * v * scale);
      store(g + i, scale * (each * load<vf>(weight + i) - v * along));
    }
  }
  for (int i = 0; i < d; i += W) put(to + i, load<vf>(g + i));
}

// ---- Products

#if defined(__AVX512BF16__)
typedef Dotted Dot;
#else
typedef Widened Dot;
#endif

// c (32, 32) = or += a (32, K) times two panels of 16 columns.
static inline void square_vectors(const element* a, long lda, const element* b, long panel, int K, float* c, long ldc,
                                  bool add) {
  constexpr int R = 4, PARTS = 16 / W;  // their products fill the registers of AVX2
  for (int side = 0; side < 2; side++)
    for (int row = 0; row < 32; row += R) {
      vf acc[R][PARTS];
      float* at = c + row * ldc + side * 16;
      for (int r = 0; r < R; r++)
        for (int x = 0; x < PARTS; x++) acc[r][x] = add ? load<vf>(at + r * ldc + x * W) : vf{};
      const element *left = a + row * lda, *right = b + side * panel;
      for (int k = 0; k < K; k += PAIR)
        for (int x = 0; x < PARTS; x++) {
#if defined(ROWS_IN_FLOAT)
          const vf weights = load<vf>(right + k * 16 + x * W);
          for (int r = 0; r < R; r++) acc[r][x] += left[r * lda + k] * weights;
#else
          const vu weights = load<vu>(right + k * 16 + x * W * 2);
          for (int r = 0; r < R; r++) acc[r][x] = Dot::dot(acc[r][x], splat(pair_at(left + r * lda + k)), weights);
#endif
        }
      for (int r = 0; r < R; r++)
        for (int x = 0; x < PARTS; x++) store(at + r * ldc + x * W, acc[r][x]);
    }
}

#if defined(TRAINING_TILES)
// A square of 32 x 32: c = or += a (32, K) b. Rows of `a` are lda apart, and 32 of its inputs stand together; the next
// 32 are 32 x step further.
static inline void square_tiles(const element* a, long lda, long step, const element* b, long panel, long K, float* c,
                                long ldc, bool add) {
  if (add) {
    _tile_loadd(0, c, ldc * 4);
    _tile_loadd(1, c + 16, ldc * 4);
    _tile_loadd(2, c + 16 * ldc, ldc * 4);
    _tile_loadd(3, c + 16 * ldc + 16, ldc * 4);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (long k = 0; k < K; k += 32) {
    _tile_loadd(4, a + k * step, lda * 2);
    _tile_loadd(6, b + k * 16, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + panel + k * 16, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 16 * lda + k * step, lda * 2);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, ldc * 4);
  _tile_stored(1, c + 16, ldc * 4);
  _tile_stored(2, c + 16 * ldc, ldc * 4);
  _tile_stored(3, c + 16 * ldc + 16, ldc * 4);
}
#endif

// c (rows, columns) = or += a (rows, K) b; rows, columns and K are multiples of 32.
static inline void multiply([[maybe_unused]] bool tiles, int rows, int columns, int K, const element* a, long lda, const element* b,
                            long panel, float* c, long ldc, bool add) {
  for (int row = 0; row < rows; row += 32)
    for (int column = 0; column < columns; column += 32) {
      const element *left = a + row * lda, *right = b + column / 16 * panel;
      float* to = c + row * ldc + column;
#if defined(TRAINING_TILES)
      if (tiles) {
        square_tiles(left, lda, 1, right, panel, K, to, ldc, add);
        continue;
      }
#endif
      square_vectors(left, lda, right, panel, K, to, ldc, add);
    }
}

// ---- One unit

// Grows and is kept: one for each thread.
struct Room {
  char* at = nullptr;
  size_t size = 0, used = 0;
  ~Room() { free(at); }
  void open(size_t wanted) {
    used = 0;
    if (wanted <= size) return;
    free(at);
    at = (char*)aligned_alloc(4096, size = (wanted + 4095) / 4096 * 4096);
    if (!at) {
      size = 0;
      throw std::bad_alloc();
    }
  }
  template <class T> T* take(long count) {
    T* here = (T*)(at + used);
    used += (count * sizeof(T) + 63) / 64 * 64;
    return here;
  }
};

struct Unit {
  const Causal& c;
  Room& room;
  const int b, kv, d, T, group;
  const long width, padded;  // of a token's row in qkv; tokens up to whole blocks
  const float scale;  // of scores, for powers of 2

  Unit(const Causal& causal, Room& room, int number)
      : c(causal),
        room(room),
        b(number / causal.kv_heads),
        kv(number % causal.kv_heads),
        d(causal.head_dim),
        T(causal.tokens),
        group(causal.heads / causal.kv_heads),
        width((long)(causal.heads + 2 * causal.kv_heads) * causal.head_dim),
        padded((causal.tokens + BLOCK - 1) / BLOCK * BLOCK),
        scale(LOG2_E / sqrtf((float)causal.head_dim)) {}

  long q_at(int t, int g) const { return ((long)b * T + t) * width + (kv * group + g) * d; }
  long k_at(int t) const { return ((long)b * T + t) * width + (c.heads + kv) * d; }
  long v_at(int t) const { return k_at(t) + c.kv_heads * d; }
  long out_at(int t, int g) const { return ((long)b * T + t) * c.heads * d + (kv * group + g) * d; }
  const float* angles(const float* table, int t) const { return table + ((long)b * T + t) * (d / 2); }
  int start(int t) const { return c.starts[(long)b * T + (t < T ? t : T - 1)]; }
  static size_t bytes(const Causal& c, bool backward) {
    const size_t padded = (c.tokens + BLOCK - 1) / BLOCK * BLOCK, d = c.head_dim, group = c.heads / c.kv_heads;
    const size_t e = sizeof(element), blocks = BLOCK * ((3 * e + 8) * BLOCK + (4 * e + 8) * d) + 64 * 1024;
    return blocks + (backward ? group * padded * (d * (4 * e + 4) + 8) : 2 * padded * d * e);
  }

  // Rows `first` … of a block: turned queries or keys, or values; zeros behind the last token.
  template <class Row> void rows(int first, element* to, Row row) const {
    for (int i = 0; i < BLOCK; i++)
      if (first + i < T)
        row(first + i, to + (long)i * d);
      else
        memset(to + (long)i * d, 0, d * sizeof *to);
  }
  void query_rows(int first, int g, element* to) const {
    rows(first, to, [&](int t, element* row) {
      turn(c.qkv + q_at(t, g), c.q_weight, angles(c.cos, t), angles(c.sin, t), d, c.eps, row);
    });
  }
  void key_rows(int first, element* to) const {
    rows(first, to, [&](int t, element* row) {
      turn(c.qkv + k_at(t), c.k_weight, angles(c.cos, t), angles(c.sin, t), d, c.eps, row);
    });
  }
  void value_rows(int first, element* to) const {
    rows(first, to, [&](int t, element* row) { memcpy(row, c.qkv + v_at(t), d * sizeof *row); });
  }

  // Which queries of a block see which keys of another: whether all do, and lane by lane.
  bool whole(int key, int query) const { return key + BLOCK <= query && key >= start(query + BLOCK - 1); }
  void limits(int query, int* last, int* first) const {
    for (int i = 0; i < BLOCK; i++) last[i] = query + i, first[i] = start(query + i);
  }

  void forward() {
    room.open(bytes(c, false));
    element *k = room.take<element>(padded * d), *columns = room.take<element>(padded * d);
    element *row = room.take<element>(BLOCK * d), *q = room.take<element>(BLOCK * d), *p = room.take<element>(BLOCK * BLOCK);
    float *scores = room.take<float>(BLOCK * BLOCK), *mixed = room.take<float>(BLOCK * d);
    for (int first = 0; first < padded; first += BLOCK) {
      key_rows(first, k + (long)first * d);
      value_rows(first, row);
      pack_columns(row, BLOCK, d, columns, padded, first);
    }
    for (int g = 0; g < group; g++)
      for (int query = 0; query < padded; query += BLOCK) {
        query_rows(query, g, row);
        pack_across(row, BLOCK, d, q);
        float highest[BLOCK], mass[BLOCK];
        for (int i = 0; i < BLOCK; i++) highest[i] = HIDDEN, mass[i] = 0.0f;
        const int begin = start(query) / BLOCK * BLOCK;
        for (int key = begin; key <= query; key += BLOCK) {
          multiply(c.tiles, BLOCK, BLOCK, d, k + (long)key * d, d, q, 16 * d, scores, BLOCK, false);
          float factor[BLOCK];
          weigh(key, query, scores, highest, mass, factor, p);
          if (key > begin)
            for (int i = 0; i < d; i++)
              for (int j = 0; j < BLOCK; j += W) {
                float* at = mixed + i * BLOCK + j;
                store(at, load<vf>(at) * load<vf>(factor + j));
              }
          multiply(c.tiles, d, BLOCK, BLOCK, columns + key, padded, p, BLOCK * 16, mixed, BLOCK, key > begin);
        }
        finish(query, g, highest, mass, mixed);
      }
  }

  // Scores → pairs of exponentials below the running maximum; what was summed before is to be multiplied by `factor`.
  void weigh(int key, int query, float* scores, float* highest, float* mass, float* factor, element* p) const {
    int last[BLOCK], first[BLOCK];
    const bool all = whole(key, query);
    if (!all) limits(query, last, first);
    for (int j = 0; j < BLOCK; j += W) {
      const vf before = load<vf>(highest + j);
      vf most = before;
      if (all)
        for (int r = 0; r < BLOCK; r++) most = larger(most, load<vf>(scores + r * BLOCK + j));
      else {
        const vi upto = load<vi>(last + j), from = load<vi>(first + j);
        for (int r = 0; r < BLOCK; r++) {
          const vi at = vi{} + (key + r);
          float* here = scores + r * BLOCK + j;
          const vf s = ((at <= upto) & (at >= from)) ? load<vf>(here) : splat(HIDDEN);
          store(here, s);
          most = larger(most, s);
        }
      }
      const vf shrink = power((before - most) * scale), top = most * scale;
      vf total = load<vf>(mass + j) * shrink;
      for (int r = 0; r < BLOCK; r += 2) {
        const vf even = load<vf>(scores + r * BLOCK + j), odd = load<vf>(scores + (r + 1) * BLOCK + j);
        vf e = power(even * scale - top), o = power(odd * scale - top);
        if (!all) e = even > HIDDEN ? e : vf{}, o = odd > HIDDEN ? o : vf{};
        total += e + o;
        Pair(e, o).store_right(p + j / 16 * BLOCK * 16, r, j % 16);
      }
      store(highest + j, most);
      store(mass + j, total);
      store(factor + j, shrink);
    }
  }

  void finish(int query, int g, const float* highest, const float* mass, float* mixed) const {
    float over[BLOCK], rows[16 * 16];
    for (int i = 0; i < BLOCK; i++) over[i] = 1.0f / mass[i];
    for (int j = 0; j < BLOCK; j += 16)
      for (int i = 0; i < d; i += 16) {
        transpose((const uint32_t*)(mixed + i * BLOCK + j), BLOCK, (uint32_t*)rows, 16);
        for (int r = 0; r < 16 && query + j + r < T; r++)
          for (int x = 0; x < 16; x += W)
            put(c.out + out_at(query + j + r, g) + i + x, load<vf>(rows + r * 16 + x) * over[j + r]);
      }
    float* masses = c.masses + ((long)b * c.heads + kv * group + g) * T;
    for (int i = 0; i < BLOCK && query + i < T; i++) masses[query + i] = highest[i] * scale + log2f(mass[i]);
  }

  // What the backward pass holds of one query head.
  struct Head {
    element *q, *d_out;  // right sides over head_dim: panels of 16 queries
    element *q_along, *d_out_along;  // right sides over queries
    float* d_q;  // (d, padded)
    float *mass, *delta;  // (padded): log2 of the sum of exponentials; d_out · out
  };

  Head open_head(int g, element* row) const {
    const long all = padded * d;
    Head h{room.take<element>(all), room.take<element>(all),   room.take<element>(all),    room.take<element>(all),
           room.take<float>(all), room.take<float>(padded), room.take<float>(padded)};
    memset(h.d_q, 0, all * 4);
    const float* masses = c.masses + ((long)b * c.heads + kv * group + g) * T;
    for (int t = 0; t < padded; t++) {
      float dot = 0.0f;
      if (t < T) {
        vf dots = {};
        for (int i = 0; i < d; i += W) {
          const long at = out_at(t, g) + i;
          dots += wide(c.out + at) * wide(c.d_out + at);
        }
        dot = sum(dots);
      }
      h.mass[t] = t < T ? masses[t] : 0.0f, h.delta[t] = dot;
    }
    for (int first = 0; first < padded; first += BLOCK) {
      query_rows(first, g, row);
      pack_across(row, BLOCK, d, h.q + (long)first * d);
      pack_along(row, BLOCK, d, h.q_along, padded, first);
      rows(first, row, [&](int t, element* to) { memcpy(to, c.d_out + out_at(t, g), d * sizeof *to); });
      pack_across(row, BLOCK, d, h.d_out + (long)first * d);
      pack_along(row, BLOCK, d, h.d_out_along, padded, first);
    }
    return h;
  }

  void backward() {
    room.open(bytes(c, true));
    element *row = room.take<element>(BLOCK * d), *k = room.take<element>(BLOCK * d), *v = room.take<element>(BLOCK * d);
    element* columns = room.take<element>(BLOCK * d);
    element *p = room.take<element>(BLOCK * BLOCK), *ds = room.take<element>(BLOCK * BLOCK), *pairs = room.take<element>(BLOCK * BLOCK);
    float *scores = room.take<float>(BLOCK * BLOCK), *d_p = room.take<float>(BLOCK * BLOCK);
    float *d_k = room.take<float>(BLOCK * d), *d_v = room.take<float>(BLOCK * d);
    float *d_q_weight = nullptr, *d_k_weight = nullptr;
    if (c.q_weight) {
      d_q_weight = c.d_q_weight + ((long)b * c.kv_heads + kv) * d;
      d_k_weight = c.d_k_weight + ((long)b * c.kv_heads + kv) * d;
      memset(d_q_weight, 0, d * 4);
      memset(d_k_weight, 0, d * 4);
    }
    Head heads[64];
    for (int g = 0; g < group; g++) heads[g] = open_head(g, row);
    for (int key = 0; key < padded; key += BLOCK) {
      key_rows(key, k);
      value_rows(key, v);
      pack_columns(k, BLOCK, d, columns, BLOCK, 0);
      memset(d_k, 0, BLOCK * d * 4);
      memset(d_v, 0, BLOCK * d * 4);
      for (int g = 0; g < group; g++) {
        const Head& h = heads[g];
        for (int query = key; query < padded && start(query) < key + BLOCK; query += BLOCK) {
          multiply(c.tiles, BLOCK, BLOCK, d, k, d, h.q + (long)query * d, 16 * d, scores, BLOCK, false);
          multiply(c.tiles, BLOCK, BLOCK, d, v, d, h.d_out + (long)query * d, 16 * d, d_p, BLOCK, false);
          weigh_back(key, query, h, scores, d_p, p, ds, pairs);
          multiply(c.tiles, BLOCK, d, BLOCK, p, BLOCK, h.d_out_along + query * 16, padded * 16, d_v, d, true);
          multiply(c.tiles, BLOCK, d, BLOCK, ds, BLOCK, h.q_along + query * 16, padded * 16, d_k, d, true);
          multiply(c.tiles, d, BLOCK, BLOCK, columns, BLOCK, pairs, BLOCK * 16, h.d_q + query, padded, true);
        }
      }
      for (int i = 0; i < BLOCK && key + i < T; i++) {
        const int t = key + i;
        turn_back(d_k + i * d, c.qkv + k_at(t), c.k_weight, angles(c.cos, t), angles(c.sin, t), d, c.eps,
                  c.d_qkv + k_at(t), d_k_weight);
        for (int x = 0; x < d; x += W) put(c.d_qkv + v_at(t) + x, load<vf>(d_v + i * d + x));
      }
    }
    float rows[16 * 512];
    for (int g = 0; g < group; g++)
      for (int query = 0; query < T; query += 16) {
        for (int i = 0; i < d; i += 16)
          transpose((const uint32_t*)(heads[g].d_q + i * padded + query), padded, (uint32_t*)(rows + i), d);
        for (int i = 0; i < 16 && query + i < T; i++) {
          const int t = query + i;
          turn_back(rows + i * d, c.qkv + q_at(t, g), c.q_weight, angles(c.cos, t), angles(c.sin, t), d, c.eps,
                    c.d_qkv + q_at(t, g), d_q_weight);
        }
      }
  }

  // Scores and the gradients of weights → weights and the gradients of scores, as left sides; the latter as pairs too.
  void weigh_back(int key, int query, const Head& h, const float* scores, const float* d_p, element* p, element* ds,
                  element* pairs) const {
    int last[BLOCK], first[BLOCK];
    const bool all = whole(key, query);
    const float narrower = scale / LOG2_E;
    if (!all) limits(query, last, first);
    for (int j = 0; j < BLOCK; j += W) {
      const vf mass = load<vf>(h.mass + query + j), delta = load<vf>(h.delta + query + j);
      for (int r = 0; r < BLOCK; r += 2) {
        vf weight[2], slope[2];
        for (int x = 0; x < 2; x++) {
          const int at = (r + x) * BLOCK + j;
          weight[x] = power(load<vf>(scores + at) * scale - mass);
          if (!all) {
            const vi here = vi{} + (key + r + x);
            weight[x] = ((here <= load<vi>(last + j)) & (here >= load<vi>(first + j))) ? weight[x] : vf{};
          }
          slope[x] = weight[x] * (load<vf>(d_p + at) - delta);
        }
        const int at = r * BLOCK + j;
        Pair(weight[0], weight[1]).store_rows(p + at, p + at + BLOCK);
        const Pair slopes(slope[0] * narrower, slope[1] * narrower);
        slopes.store_rows(ds + at, ds + at + BLOCK);
        slopes.store_right(pairs + j / 16 * BLOCK * 16, r, j % 16);
      }
    }
  }
};

static void run(const Causal& c, bool backward) {
  const int units = c.batch * c.kv_heads;
  bool failed = false;
#pragma omp parallel num_threads(c.threads < units ? c.threads : units)
  {
    static thread_local Room room;
#if defined(TRAINING_TILES)
    if (c.tiles) shape_tiles(32, 16);
#endif
#pragma omp for schedule(dynamic)
    for (int number = 0; number < units; number++) try {
        Unit unit(c, room, number);
        backward ? unit.backward() : unit.forward();
      } catch (const std::bad_alloc&) {
#pragma omp atomic write
        failed = true;
      }
#if defined(TRAINING_TILES)
    if (c.tiles) _tile_release();
#endif
  }
  if (failed) throw std::bad_alloc();
}

}  // namespace causal
