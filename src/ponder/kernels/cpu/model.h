// What a model is to the step: sizes, packed weights, the pool of pages, and room to work in.
#pragma once
#include <sys/mman.h>

#include <cstdlib>
#include <vector>

#include "attention.h"
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

struct Layer {
  float *norm1, *norm2, *q_norm, *k_norm, *qkv_bias, *o_bias;  // null: none
  bf16 *qkv, *o, *gate_up, *down;
};

struct Model {
  Shape s;
  long D, F, HD, QKV, V;  // padded widths: stream, MLP, heads together, their products, vocabulary
  std::vector<Layer> layers;
  float* norm;
  bf16* head;
  const void* embed;  // (vocab, hidden) as the model holds it
  Memory weights, pool, room;
  long page;  // numbers in a page, all layers
  // Of one step, by row: residual stream, projections, attention so far; normed rows, queries, attended values, gated
  // values.
  long rows = 0;
  float *x, *qkv, *states;
  bf16 *normed, *queries, *attended, *gated;
  long ld_normed, ld_attended, ld_gated;  // not a power of two: rows would meet in the same lines of the cache
  std::vector<Bench*> benches;
  std::vector<Chooser> choosers;
  Team team;

  bf16* head_of(int layer, int kv_head) const {
    return (bf16*)pool.at + ((long)layer * s.kv_heads + kv_head) * 2 * PAGE * s.head_dim;
  }

  explicit Model(const Shape& shape) : s(shape), layers(shape.layers) {
    D = padded(s.hidden), F = padded(s.mlp), HD = padded((long)s.heads * s.head_dim), V = padded(s.vocab);
    QKV = padded((long)(s.heads + 2 * s.kv_heads) * s.head_dim);
    page = (long)s.layers * s.kv_heads * 2 * PAGE * s.head_dim;
    ld_normed = D + 32, ld_attended = HD + 32, ld_gated = F + 32;
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

  size_t lay_out_weights(char* base) {
    Cutter cut{base};
    for (Layer& layer : layers) {
      layer.norm1 = cut.take<float>(D), layer.norm2 = cut.take<float>(D);
      layer.q_norm = cut.take<float>(s.head_dim), layer.k_norm = cut.take<float>(s.head_dim);
      layer.qkv_bias = cut.take<float>(QKV), layer.o_bias = cut.take<float>(D);
      layer.qkv = cut.take<bf16>(QKV * D), layer.o = cut.take<bf16>(D * HD);
      layer.gate_up = cut.take<bf16>(2 * F * D), layer.down = cut.take<bf16>(D * F);
    }
    norm = cut.take<float>(D);
    head = cut.take<bf16>(V * D);
    return cut.used;
  }

  size_t lay_out_room(char* base, long wanted) {
    Cutter cut{base};
    x = cut.take<float>(wanted * D), qkv = cut.take<float>(wanted * QKV);
    states = cut.take<float>(wanted * s.heads * (s.head_dim + 2));
    normed = cut.take<bf16>(wanted * ld_normed), queries = cut.take<bf16>(wanted * s.heads * s.head_dim);
    attended = cut.take<bf16>(wanted * ld_attended), gated = cut.take<bf16>(wanted * ld_gated);
    return cut.used;
  }

  bool make_room(long wanted, int threads) {
    while ((int)benches.size() < threads) {
      void* bench = aligned_alloc(64, padded(sizeof(Bench), 64));
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
