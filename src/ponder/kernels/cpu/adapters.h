// LoRA adapters inside a step: beside a product that all rows share, each run's own narrow one, y += (x A^T) B^T.
//
// A row's numbers are added up in one order, whatever runs beside it.
#pragma once
#include <algorithm>
#include <vector>

#include "vectors.h"

// An adapter lies in one piece in the order in which it is read, and mostly comes from memory.
static inline void announce_adapter(const bf16* at) { __builtin_prefetch((const char*)at, 0, 3); }

static inline float lanes_added(vf v) {
#if defined(__AVX512F__)
  if constexpr (W == 16) return _mm512_reduce_add_ps((__m512)v);
#endif
  return sum(v);
}

// kernels/adapters.py: the same fields in the same order. Of one projection; rank 0: the adapter leaves it alone.
extern "C" struct LowRank {
  long rank;
  const bf16* down;  // A: (rank, inputs as padded in the model)
  const bf16* up;    // B times alpha / rank: [outputs / 16][rank][16]
};

enum Projection { Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ, PROJECTIONS };
constexpr int LANES = 16;  // outputs of a panel of B

// Rows that follow one another and have one adapter: PROJECTIONS for each layer.
struct Adapted {
  const LowRank* adapter;
  int first, count;
};

static inline std::vector<Adapted> adapted_rows(const LowRank* const* adapters, const int* lengths, int runs) {
  constexpr int TOGETHER = 32;  // rows that stay in the cache beside A
  std::vector<Adapted> found;
  for (int run = 0, row = 0; run < runs; row += lengths[run++]) {
    if (!adapters[run]) continue;
    for (int begin = 0; begin < lengths[run];) {
      Adapted* last = found.empty() ? nullptr : &found.back();
      const bool joins = last && last->adapter == adapters[run] && last->first + last->count == row + begin;
      if (!joins || last->count == TOGETHER) found.push_back({adapters[run], row + begin, 0}), last = &found.back();
      const int count = std::min(TOGETHER - last->count, lengths[run] - begin);
      last->count += count, begin += count;
    }
  }
  return found;
}

static inline vf widened(const bf16* at) { return (vf)(__builtin_convertvector(load<vh>(at), vu) << 16); }

// R rows of A against one x, `inputs` (a multiple of 32) wide.
template <int R> static inline void narrow_product(const bf16* down, const bf16* x, long inputs, float* low) {
#if defined(__AVX512BF16__)
  using Dot = Dotted;
#else
  using Dot = Widened;
#endif
  vf sums[R] = {};
  for (long k = 0; k < inputs; k += 2 * W) {
    const vu pairs = load<vu>(x + k);
    for (int r = 0; r < R; r++) {
      announce_adapter(down + (r + R) * inputs + k);
      sums[r] = Dot::dot(sums[r], pairs, load<vu>(down + r * inputs + k));
    }
  }
  for (int r = 0; r < R; r++) low[r] = lanes_added(sums[r]);
}

// x A^T of one projection for `count` rows.
static inline void make_low(const LowRank& p, const bf16* x, long ldx, long inputs, int count, float* low, long ldl) {
  long r = 0;
  for (; r + 4 <= p.rank; r += 4)
    for (int row = 0; row < count; row++) narrow_product<4>(p.down + r * inputs, x + row * ldx, inputs, low + row * ldl + r);
  for (; r < p.rank; r++)
    for (int row = 0; row < count; row++) narrow_product<1>(p.down + r * inputs, x + row * ldx, inputs, low + row * ldl + r);
}

// The 16 outputs of one panel get what the adapter adds.
static inline void add_low(const LowRank& p, long panel, const float* low, float* out) {
  const bf16* up = p.up + panel * p.rank * LANES;
  for (int i = 0; i < LANES; i += W) {
    vf sums[4] = {};
    long r = 0;
    for (; r + 4 <= p.rank; r += 4)
      for (int c = 0; c < 4; c++) {
        if (c % 2 == 0) announce_adapter(up + 4 * p.rank * LANES + (r + c) * LANES);
        sums[c] += splat(low[r + c]) * widened(up + (r + c) * LANES + i);
      }
    for (; r < p.rank; r++) sums[0] += splat(low[r]) * widened(up + r * LANES + i);
    store(out + i, load<vf>(out + i) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
}
