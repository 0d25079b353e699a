// From weights as checkpoints hold them, (outputs, inputs) row by row, to panels.
#pragma once
#include "model.h"

struct Packing {
  bf16* panels;
  long count;
  const void* parts[3];  // weights whose outputs follow one another; gated: whose outputs alternate, 16 by 16
  long heights[3];
  long K, K_padded;
  bool gated;
};

static inline void copy_floats(float* to, const void* from, long count, bool floats) {
  for (long i = 0; i < count; i++) to[i] = floats ? ((const float*)from)[i] : widen(((const bf16*)from)[i]);
}

// The row of a weight that output `j` of a panel is; null where outputs are padding.
static inline const void* source(const Packing& p, long panel, int j, long size) {
  long part = 0, output = panel * PANEL + j;
  if (p.gated) {
    part = j / 16, output = panel * 16 + j % 16;
    if (output >= p.heights[part]) return nullptr;
  }
  while (output >= p.heights[part]) {
    output -= p.heights[part];
    if (++part == 3) return nullptr;
  }
  return (const char*)p.parts[part] + output * p.K * size;
}

static void pack_panel(const Packing& p, long panel, bool floats) {
  bf16* to = p.panels + panel * p.K_padded * PANEL;
  const void* rows[PANEL];
  for (int j = 0; j < PANEL; j++) rows[j] = source(p, panel, j, floats ? 4 : 2);
  for (long begin = 0; begin < p.K_padded; begin += 32) {
    const long some = p.K - begin < 32 ? (p.K > begin ? p.K - begin : 0) : 32;
    for (int j = 0; j < PANEL; j++) {
      bf16 line[32] = {};
      if (rows[j] && floats)
        for (long k = 0; k < some; k++) line[k] = narrow(((const float*)rows[j])[begin + k]);
      else if (rows[j])
        memcpy(line, (const bf16*)rows[j] + begin, some * sizeof(bf16));
      for (int k = 0; k < 32; k += 2) memcpy(to + (begin + k) * PANEL + j * 2, line + k, 4);
    }
  }
}

// Norms and biases are copied, weights are left to pack. `from`: for each layer norm, q, k, v, their three biases, o,
// its bias, norms of q and k, norm, gate, up, down; then embedding, norm, head. Null where the model has none.
static std::vector<Packing> packings(Model& m, const void* const* from) {
  constexpr int EACH = 15;
  const Shape& s = m.s;
  const bool floats = s.float_weights;
  const long q = (long)s.heads * s.head_dim, kv = (long)s.kv_heads * s.head_dim;
  std::vector<Packing> all;
  for (Layer& layer : m.layers) {
    const void* const* w = from + (&layer - m.layers.data()) * EACH;
    copy_floats(layer.norm1, w[0], s.hidden, floats);
    if (w[4]) {
      copy_floats(layer.qkv_bias, w[4], q, floats);
      copy_floats(layer.qkv_bias + q, w[5], kv, floats);
      copy_floats(layer.qkv_bias + q + kv, w[6], kv, floats);
    } else {
      layer.qkv_bias = nullptr;
    }
    if (w[8])
      copy_floats(layer.o_bias, w[8], s.hidden, floats);
    else
      layer.o_bias = nullptr;
    if (w[9]) copy_floats(layer.q_norm, w[9], s.head_dim, floats);
    if (w[10]) copy_floats(layer.k_norm, w[10], s.head_dim, floats);
    copy_floats(layer.norm2, w[11], s.hidden, floats);
    all.push_back({layer.qkv, m.QKV / PANEL, {w[1], w[2], w[3]}, {q, kv, kv}, s.hidden, m.D, false});
    all.push_back({layer.o, m.D / PANEL, {w[7]}, {s.hidden}, q, m.HD, false});
    all.push_back({layer.gate_up, 2 * m.F / PANEL, {w[12], w[13]}, {s.mlp, s.mlp}, s.hidden, m.D, true});
    all.push_back({layer.down, m.D / PANEL, {w[14]}, {s.hidden}, s.mlp, m.F, false});
  }
  const void* const* last = from + s.layers * EACH;
  m.embed = last[0];
  copy_floats(m.norm, last[1], s.hidden, floats);
  all.push_back({m.head, m.V / PANEL, {last[2]}, {s.vocab}, s.hidden, m.D, false});
  return all;
}
