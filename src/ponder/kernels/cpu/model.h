// What a model is to the step: sizes, packed weights, the pool of pages, and room to work in.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "adapters.h"
#include "attention.h"
#include "blocks.h"
#include "integers.h"
#include "sampling.h"
#include "team.h"

extern "C" struct Shape {  // kernels/fused.py: the same fields in the same order
  int vocab, hidden, layers, heads, kv_heads, head_dim, mlp, qk_norm, float_weights;
  float eps;
};

static inline long padded(long n, long to = PANEL) { return (n + to - 1) / to * to; }

// Zeroed memory that costs nothing until it is written, in large pages where the system has them.
struct Memory {
  char* at = nullptr;
  size_t bytes = 0;
  bool map(size_t wanted) {
    bytes = padded(wanted ? wanted : 1, 1 << 21);
    void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    at = got == MAP_FAILED ? nullptr : (char*)got;
    if (!at) return false;
    madvise(at, bytes, MADV_HUGEPAGE);
    return true;
  }
  void clear() { madvise(at, bytes, MADV_DONTNEED); }  // reads as zeros again
  void unmap() {
    if (at) munmap(at, bytes);
    at = nullptr;
  }
};

struct Matrix {  // (outputs, K), packed
  Form form;
  void* panels;
  float* scales;  // INT8: for each output
  long outputs, K;
};

static inline long panel_bytes(Form form, long K) {
  if (form == Form::BFLOAT16) return K * PANEL * sizeof(bf16);
  return K / GROUP * with_form(form, [](auto form) { return decltype(form)::BYTES; });
}

struct Layer {
  float *norm1, *norm2, *q_norm, *k_norm, *qkv_bias, *o_bias;  // null: none
  Matrix qkv, o, gate_up, down;
};

struct Model {
  Shape s;
  long D, F, HD, QKV, V;  // padded widths: stream, MLP, heads together, their products, vocabulary
  std::vector<Layer> layers;
  float* norm;
  Matrix head;
  const void* embed;  // (vocab, hidden) as the model holds it
  int embed_type = FLOATS;
  bool mapped = false;  // embed is in a mapped file
  long looked_up = 0;   // rows of it since its pages were given back
  bool expands = false;  // some weights are not bfloat16
  Memory weights, pool, room;
  long page;  // numbers in a page, all layers
  // Of one step, by row: residual stream, projections, attention so far; normed rows, queries, attended values, gated
  // values.
  long rows = 0;
  float *x, *qkv, *states;
  bf16 *normed, *queries, *attended, *gated;
  long ld_x, ld_qkv, ld_normed, ld_attended, ld_gated;  // no powers of two: rows would meet in one line of the cache
  // Of the next step: an adapter for each run, or nothing; the ranks that one product has at most. Then its room.
  std::vector<const LowRank*> adapters;
  long widest_low = 0;
  std::vector<float> low, wide;
  std::vector<Bench*> benches;
  std::vector<Chooser> choosers;
  Team team;

  bf16* head_of(int layer, int kv_head) const {
    return (bf16*)pool.at + ((long)layer * s.kv_heads + kv_head) * 2 * PAGE * s.head_dim;
  }

  // `forms`: of each layer's qkv, o, gate_up and down, then of the head.
  Model(const Shape& shape, const int* forms) : s(shape), layers(shape.layers) {
    for (Layer& layer : layers)
      for (Matrix* matrix : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) matrix->form = (Form)*forms++;
    head.form = (Form)*forms;
    D = padded(s.hidden), F = padded(s.mlp), HD = padded((long)s.heads * s.head_dim), V = padded(s.vocab);
    QKV = padded((long)(s.heads + 2 * s.kv_heads) * s.head_dim);
    page = (long)s.layers * s.kv_heads * 2 * PAGE * s.head_dim;
    ld_x = D + 16, ld_qkv = QKV + 16, ld_normed = D + 32, ld_attended = HD + 32, ld_gated = F + 32;
  }
  ~Model() {
    weights.unmap(), pool.unmap(), room.unmap();
    for (Bench* bench : benches) free(bench);
  }

  // Hands out parts of a mapping; with `base` null it only counts.
  struct Cutter {
    char* base;
    size_t used = 0;
    template <class T> T* take(long count) {
      T* part = base ? (T*)(base + used) : nullptr;
      used += padded(count * sizeof(T), 64);
      return part;
    }
  };

  void take(Cutter& cut, Matrix& matrix, long outputs, long K) {
    matrix.outputs = outputs, matrix.K = K;
    matrix.scales = matrix.form == Form::INT8 ? cut.take<float>(outputs) : nullptr;
    matrix.panels = cut.take<char>(outputs / PANEL * panel_bytes(matrix.form, K));
    expands |= matrix.form != Form::BFLOAT16;
  }

  size_t lay_out_weights(char* base) {
    Cutter cut{base};
    for (Layer& layer : layers) {
      layer.norm1 = cut.take<float>(D), layer.norm2 = cut.take<float>(D);
      layer.q_norm = cut.take<float>(s.head_dim), layer.k_norm = cut.take<float>(s.head_dim);
      layer.qkv_bias = cut.take<float>(QKV), layer.o_bias = cut.take<float>(D);
      take(cut, layer.qkv, QKV, D), take(cut, layer.o, D, HD);
      take(cut, layer.gate_up, 2 * F, D), take(cut, layer.down, D, F);
    }
    norm = cut.take<float>(D);
    take(cut, head, V, D);
    return cut.used;
  }

  size_t lay_out_room(char* base, long wanted) {
    Cutter cut{base};
    x = cut.take<float>(wanted * ld_x), qkv = cut.take<float>(wanted * ld_qkv);
    states = cut.take<float>(wanted * s.heads * (s.head_dim + 2));
    normed = cut.take<bf16>(wanted * ld_normed), queries = cut.take<bf16>(wanted * s.heads * s.head_dim);
    attended = cut.take<bf16>(wanted * ld_attended), gated = cut.take<bf16>(wanted * ld_gated);
    return cut.used;
  }

  bool make_room(long wanted, int threads) {
    const size_t expanded = expands ? ABREAST * std::max({D, HD, F, (long)CHUNK}) * PANEL * sizeof(bf16) : 0;
    while ((int)benches.size() < threads) {
      void* bench = aligned_alloc(64, padded(sizeof(Bench), 64) + expanded);  // more than RoundedRows takes
      if (!bench) return false;
      memset(bench, 0, sizeof(Bench));
      benches.push_back((Bench*)bench);
    }
    wanted = padded(wanted);  // tiles read and write whole blocks of rows
    if (wanted <= rows) return true;
    room.unmap();
    rows = 0;
    if (!room.map(lay_out_room(nullptr, wanted))) return false;
    lay_out_room(room.at, wanted);
    rows = wanted;
    return true;
  }
};
