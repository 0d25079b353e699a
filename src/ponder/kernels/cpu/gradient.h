// Gradients of weights: sums over tokens, kept in float32 where they are accumulated (AMX only).
#pragma once
#include "causal.h"

#if defined(TRAINING_TILES)
namespace gradient {

constexpr int PARTS = 3;

extern "C" struct Gradient {  // kernels/training.py: the same fields in the same order
  long tokens, outputs, inputs, ld_left, ld_right;
  const bf16 *left, *right;  // (tokens, outputs) and (tokens, inputs)
  float* to[PARTS];  // (rows, inputs) each, together (outputs, inputs), or with `turned` one (inputs, outputs)
  long rows[PARTS];
  int threads, add, turned;
};

constexpr long NEAR = 1 << 20;  // bytes of the right side that stay in the cache while the left side passes

// 32 tokens of 32 columns as two tiles [16 columns][32 tokens].
static inline void pack_left(const bf16* from, long ld, long tokens, bf16* to) {
  alignas(64) bf16 rows[16][32];
  for (int half = 0; half < 32; half += 16) {
    // A word is two neighbouring columns of one token; transposed, [column pair][token].
    const bf16* at = from + half * ld;
    const long there = tokens - half;
    if (there < 16) {
      memset(rows, 0, sizeof rows);
      for (long r = 0; r < there; r++) memcpy(rows[r], at + r * ld, 64);
      at = rows[0];
    }
    alignas(64) uint32_t pairs[16][16];
    transpose((const uint32_t*)at, there < 16 ? 16 : ld / 2, pairs[0], 16);
    for (int j = 0; j < 16; j++) {
      bf16* even = to + 2 * j * 32 + half;
      const vu v = load<vu>(pairs[j]);
      store(even, __builtin_convertvector(v & 0xffffu, vh));
      store(even + 32, __builtin_convertvector(v >> 16, vh));
    }
  }
}

// 32 columns as two panels of 16: pairs of tokens, [tokens / 2][16][2].
static inline void pack_right(const bf16* from, long ld, long tokens, long padded, bf16* to, long panel) {
  for (long t = 0; t < padded; t += 2)
    for (int side = 0; side < 2; side++) {
      const bf16* at = from + t * ld + side * 16;
      const vu even = t < tokens ? __builtin_convertvector(load<vh>(at), vu) : vu{};
      const vu odd = t + 1 < tokens ? __builtin_convertvector(load<vh>(at + ld), vu) : vu{};
      store((uint32_t*)(to + side * panel + t * 16), even | (odd << 16));
    }
}

// A square of 32 x 32 over `tokens`, added to `c`.
static inline void square(const bf16* left, const bf16* right, long panel, long tokens, float* c, long ldc, bool add) {
  causal::square_tiles(left, 32, 32, right, panel, tokens, c, ldc, add);
}

static inline void store_turned(const float* square, float* to, long ld, bool add) {
  alignas(64) float turned[16][16];
  for (int i = 0; i < 32; i += 16)
    for (int j = 0; j < 32; j += 16) {
      transpose((const uint32_t*)(square + i * 32 + j), 32, (uint32_t*)turned[0], 16);
      for (int r = 0; r < 16; r++) {
        float* at = to + (j + r) * ld + i;
        store(at, add ? load<vf>(at) + load<vf>(turned[r]) : load<vf>(turned[r]));
      }
    }
}

static void run(const Gradient& g) {
  const long near = NEAR / 2 / g.inputs, most = near > 256 ? near : 256, chunks = (g.tokens + most - 1) / most;
  const long chunk = ((g.tokens + chunks - 1) / chunks + 31) / 32 * 32;
  static causal::Room shared;
  shared.open(chunk * (g.inputs + g.outputs) * 2);
  bf16 *right = shared.take<bf16>(chunk * g.inputs), *left = shared.take<bf16>(chunk * g.outputs);
#pragma omp parallel num_threads(g.threads)
  {
    shape_tiles(32, 16);
    for (long begin = 0; begin < g.tokens; begin += chunk) {
      const long tokens = g.tokens - begin < chunk ? g.tokens - begin : chunk, padded = (tokens + 31) / 32 * 32;
      const bool add = g.add || begin > 0;
#pragma omp for schedule(static) nowait
      for (long i = 0; i < g.inputs; i += 32)
        pack_right(g.right + begin * g.ld_right + i, g.ld_right, tokens, padded, right + i * chunk, chunk * 16);
#pragma omp for schedule(static)
      for (long t = 0; t < padded; t += 32)
        for (long o = 0; o < g.outputs; o += 32)
          pack_left(g.left + (begin + t) * g.ld_left + o, g.ld_left, tokens - t, left + o * chunk + t * 32);
#pragma omp for schedule(dynamic)
      for (long o = 0; o < g.outputs; o += 32) {
        long row = o;
        int part = 0;
        while (row >= g.rows[part]) row -= g.rows[part++];
        for (long i = 0; i < g.inputs; i += 32) {
          const bf16* panels = right + i * chunk;
          if (g.turned) {
            alignas(64) float sums[32 * 32];
            square(left + o * chunk, panels, chunk * 16, padded, sums, 32, false);
            store_turned(sums, g.to[0] + i * g.outputs + o, g.outputs, add);
          } else
            square(left + o * chunk, panels, chunk * 16, padded, g.to[part] + row * g.inputs + i, g.inputs, add);
        }
      }
    }
    _tile_release();
  }
}

}  // namespace gradient
#endif
