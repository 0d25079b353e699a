// What stands between the matrix products of a training step, forward and backward: norms with the residual sum,
// attention, SwiGLU, cross entropy. Rows of `element`, the residual stream and all sums in float32.
//
// Work is cut by its size alone, never by the number of threads, so that results do not depend on it.
#pragma once
#include "gradient.h"

namespace {

constexpr int ROWS = 32;  // a piece of work; also what one partial sum of a norm's gradient covers

struct Rows {
  long begin, end;
  Rows(long piece, long count) : begin(piece * ROWS), end(begin + ROWS < count ? begin + ROWS : count) {}
};
inline long pieces(long count) { return (count + ROWS - 1) / ROWS; }

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// 1: tiles (AMX) may be used by this process, 0: only vectors.
int ponder_training_tiles() {
#if defined(TRAINING_TILES)
  return tiles_permitted();
#else
  return 0;
#endif
}

// 0, or 1 for lack of memory.
int ponder_causal(const causal::Causal* c, int backward) try {
  causal::run(*c, backward);
  return 0;
} catch (const std::bad_alloc&) {
  return 1;
}

// 0, or 1 for lack of memory, 2 without tiles.
int ponder_gradient([[maybe_unused]] const void* g) try {
#if defined(TRAINING_TILES)
  gradient::run(*(const gradient::Gradient*)g);
  return 0;
#else
  return 2;
#endif
} catch (const std::bad_alloc&) {
  return 1;
}

// sum = h + y (y may be null, then sum is not written); out = sum / rms * weight. scales: 1 / rms of each row.
void ponder_norm(int threads, long count, long D, const float* h, const element* y, const float* weight, float eps,
                 float* sums, element* out, float* scales) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long piece = 0; piece < pieces(count); piece++) {
    const Rows rows(piece, count);
    for (long row = rows.begin; row < rows.end; row++) {
      const float* x = h + row * D;
      vf squares = {};
      if (y) {
        float* to = sums + row * D;
        for (long i = 0; i < D; i += W) {
          const vf v = load<vf>(x + i) + wide(y + row * D + i);
          squares += v * v;
          store(to + i, v);
        }
        x = to;
      } else
        for (long i = 0; i < D; i += W) squares += load<vf>(x + i) * load<vf>(x + i);
      const float scale = scales[row] = 1.0f / sqrtf(sum(squares) / D + eps);
      for (long i = 0; i < D; i += W) put(out + row * D + i, load<vf>(x + i) * scale * load<vf>(weight + i));
    }
  }
}

// d_out, and d_sum from further on → the gradient of `sum` in float32, and in bfloat16 where rows are that (d_sum may be
// null; `d` may be d_sum).
// d_weights: one row for each 32 rows.
void ponder_norm_backward(int threads, long count, long D, const float* sums, const float* scales, const float* weight,
                          const element* d_out, const float* d_sum, float* d, element* d_narrow, float* d_weights) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long piece = 0; piece < pieces(count); piece++) {
    const Rows rows(piece, count);
    float* d_weight = d_weights + piece * D;
    for (long i = 0; i < D; i++) d_weight[i] = 0.0f;
    for (long row = rows.begin; row < rows.end; row++) {
      const float* x = sums + row * D;
      const element* g = d_out + row * D;
      const float scale = scales[row];
      vf dots = {};
      for (long i = 0; i < D; i += W) {
        const vf slope = wide(g + i), v = load<vf>(x + i) * scale;
        dots += slope * load<vf>(weight + i) * v;
        store(d_weight + i, load<vf>(d_weight + i) + slope * v);
      }
      const float along = sum(dots) / D;
      for (long i = 0; i < D; i += W) {
        vf v = scale * (wide(g + i) * load<vf>(weight + i) - load<vf>(x + i) * scale * along);
        if (d_sum) v += load<vf>(d_sum + row * D + i);
        store(d + row * D + i, v);
        if constexpr (PAIR == 2) put(d_narrow + row * D + i, v);
      }
    }
  }
}

// (rows, 2 F): gates, then their values → (rows, F).
void ponder_swiglu(int threads, long count, long F, const element* both, element* out) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long piece = 0; piece < pieces(count); piece++) {
    const Rows rows(piece, count);
    for (long row = rows.begin; row < rows.end; row++)
      for (long i = 0; i < F; i += W) {
        const element* at = both + row * 2 * F + i;
        const vf gate = wide(at);
        put(out + row * F + i, gate / (1.0f + exponential(-gate)) * wide(at + F));
      }
  }
}

// d_out → the gradient of `both`, which may take its place; `out` once more.
void ponder_swiglu_backward(int threads, long count, long F, const element* both, const element* d_out, element* d_both,
                            element* out) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long piece = 0; piece < pieces(count); piece++) {
    const Rows rows(piece, count);
    for (long row = rows.begin; row < rows.end; row++)
      for (long i = 0; i < F; i += W) {
        const long at = row * 2 * F + i;
        const vf gate = wide(both + at), value = wide(both + at + F), slope = wide(d_out + row * F + i);
        const vf share = 1.0f / (1.0f + exponential(-gate)), open = gate * share;
        put(out + row * F + i, open * value);
        put(d_both + at, slope * value * (share + open * (1.0f - share)));
        put(d_both + at + F, slope * open);
      }
  }
}

// losses = weights x cross entropy; with `back` the logits become the gradient of the losses' sum. 0, or 1: a target
// whose weight is not 0 lies beyond the vocabulary.
int ponder_cross_entropy(int threads, long count, long V, element* logits, const int64_t* targets, const float* weights,
                         float* losses, int back) {
  for (long row = 0; row < count; row++)
    if (weights[row] != 0.0f && (targets[row] < 0 || targets[row] >= V)) return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (long piece = 0; piece < pieces(count); piece++) {
    const Rows rows(piece, count);
    for (long row = rows.begin; row < rows.end; row++) {
      element* x = logits + row * V;
      const float weight = weights[row];
      losses[row] = 0.0f;
      if (weight == 0.0f) {
        if (back) memset(x, 0, V * sizeof *x);
        continue;
      }
      const long whole = V / W * W;
      vf most = splat(-3e38f);
      for (long i = 0; i < whole; i += W) most = larger(most, wide(x + i));
      float top = largest(most);
      for (long i = whole; i < V; i++) top = widen(x[i]) > top ? widen(x[i]) : top;
      vf masses = {};
      for (long i = 0; i < whole; i += W) masses += exponential(wide(x + i) - top);
      float mass = sum(masses);
      for (long i = whole; i < V; i++) mass += expf(widen(x[i]) - top);
      const float target = widen(x[targets[row]]);
      losses[row] = weight * (logf(mass) + top - target);
      if (!back) continue;
      const float share = weight / mass, chosen = weight * (expf(target - top) / mass - 1.0f);
      for (long i = 0; i < whole; i += W) put(x + i, exponential(wide(x + i) - top) * share);
      for (long i = whole; i < V; i++) put(x + i, expf(widen(x[i]) - top) * share);
      put(x + targets[row], chosen);
    }
  }
  return 0;
}

}
#pragma GCC visibility pop
