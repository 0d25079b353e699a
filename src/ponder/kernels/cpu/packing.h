// From weights as checkpoints hold them, (outputs, inputs) row by row, to panels.
#pragma once
#include "model.h"

struct Packing {
  Matrix to;
  const void* parts[3];  // weights whose outputs follow one another; gated: whose outputs alternate, 16 by 16
  long heights[3];
  long K;
  bool gated;
  int types[3];
  int head_dim;
  long count() const { return to.outputs / PANEL; }  // of panels
};

static inline void copy_floats(float* to, const void* from, long count, bool floats) {
  for (long i = 0; i < count; i++) to[i] = floats ? ((const float*)from)[i] : widen(((const bf16*)from)[i]);
}

// A row of a weight as it is given; null where outputs are padding.
struct Row {
  const void* at;
  int type;
};

// The row that output `j` of a panel is.
static inline Row source(const Packing& p, long panel, int j, bool floats) {
  long part = 0, output = panel * PANEL + j;
  if (p.gated) {
    part = j / 16, output = panel * 16 + j % 16;
    if (output >= p.heights[part]) return {nullptr, FLOATS};
  }
  while (output >= p.heights[part]) {
    output -= p.heights[part];
    if (++part == 3) return {nullptr, FLOATS};
  }
  int type = p.types[part];
  if (type >= INTERLEAVED) {
    const long row = output % p.head_dim, half = p.head_dim / 2;
    output += row % half * 2 + row / half - row, type -= INTERLEAVED;
  }
  return {(const char*)p.parts[part] + output * row_bytes(type, p.K, floats), type};
}

// Up to 32 inputs of an output from `begin` on, as floats; the rest are zeros.
static inline void read_inputs(const Packing& p, const void* row, long begin, bool floats, float (&line)[32]) {
  const long some = !row || p.K < begin ? 0 : p.K - begin < 32 ? p.K - begin : 32;
  const float* wide = (const float*)row + begin;
  const bf16* half = (const bf16*)row + begin;
  for (long k = 0; k < some; k++) line[k] = floats ? wide[k] : widen(half[k]);
  for (long k = some; k < 32; k++) line[k] = 0;
}

// What the largest weight of an output is 127 times of; not a number where a weight is none.
static inline float scale_of(const Packing& p, const void* row, bool floats) {
  float most = 0, line[32];
  for (long begin = 0; begin < p.K; begin += 32) {
    read_inputs(p, row, begin, floats, line);
    for (float x : line) most = fabsf(x) > most || x != x ? fabsf(x) : most;
  }
  return most / 127;
}

static inline int8_t nearest(float x, float by) { return by ? (int8_t)rintf(x * by) : 0; }

// From blocks, or floats rounded to 4 bits.
template <class G> static void pack_groups(const Packing& p, long panel, bool floats) {
  char* to = (char*)p.to.panels + panel * (p.to.K / GROUP) * G::BYTES;
  for (long group = 0; group < p.to.K / GROUP; group++, to += G::BYTES) {
    half* scales = (half*)to;
    memset(to, 0, G::BYTES);
    for (int j = 0; j < PANEL; j++) {
      const Row row = source(p, panel, j, floats);
      float line[GROUP];
      Numbers n;
      if (row.type != FLOATS && group * GROUP < p.K) n = read_block(row.type, row.at, group);
      if (row.type == FLOATS) read_inputs(p, row.at, group * GROUP, floats, line), n = round_to_4_bits(line);
      for (int i = 0; i < G::SCALES; i++) scales[i * PANEL + j] = n.scale[i];
      if (G::OFFSETS) scales[PANEL + j] = n.offset;
      for (int k = 0; k < GROUP; k++) G::put(to, j, k, n.q[k]);
    }
  }
}

// From floats, a scale for each output.
static void pack_int8(const Packing& p, long panel, bool floats) {
  char* to = (char*)p.to.panels + panel * (p.to.K / GROUP) * Int8::BYTES;
  for (int j = 0; j < PANEL; j++) {
    const void* row = source(p, panel, j, floats).at;
    const float scale = scale_of(p, row, floats), by = scale > 1e-37f && scale < INFINITY ? 1 / scale : 0;
    p.to.scales[panel * PANEL + j] = scale;
    float line[GROUP];
    for (long group = 0; group < p.to.K / GROUP; group++) {
      read_inputs(p, row, group * GROUP, floats, line);
      for (int k = 0; k < GROUP; k++) Int8::put(to + group * Int8::BYTES, j, k, nearest(line[k], by) ^ 0x80);
    }
  }
}

static void pack_panel(const Packing& p, long panel, bool floats) {
  if (p.to.form == Form::INT8) return pack_int8(p, panel, floats);
  if (p.to.form != Form::BFLOAT16)
    return with_form(p.to.form, [&](auto form) { pack_groups<decltype(form)>(p, panel, floats); });
  bf16* to = (bf16*)p.to.panels + panel * p.to.K * PANEL;
  const void* rows[PANEL];
  for (int j = 0; j < PANEL; j++) rows[j] = source(p, panel, j, floats).at;
  float line[32];
  for (long begin = 0; begin < p.to.K; begin += 32)
    for (int j = 0; j < PANEL; j++) {
      read_inputs(p, rows[j], begin, floats, line);
      for (int k = 0; k < 32; k += 2) {
        const bf16 pair[2] = {narrow(line[k]), narrow(line[k + 1])};
        memcpy(to + (begin + k) * PANEL + j * 2, pair, 4);
      }
    }
}

// The pages of a mapped file that hold these rows of blocks, whole or in part: they are read again if they are needed
// again.
static void give_back(const void* blocks, int type, long rows, long K) {
  if (!blocks || type == FLOATS) return;
  constexpr uintptr_t PAGE_BYTES = 4096;
  const uintptr_t begin = (uintptr_t)blocks / PAGE_BYTES * PAGE_BYTES;
  madvise((void*)begin, (uintptr_t)blocks + rows * row_bytes(type % INTERLEAVED, K, false) - begin, MADV_DONTNEED);
}

// Norms and biases are copied, weights are left to pack. `from`: for each layer norm, q, k, v, their three biases, o,
// its bias, norms of q and k, norm, gate, up, down; then embedding, norm, head. Null where the model has none. `types`:
// of each of them; only matrices and the embedding are anything but FLOATS.
static std::vector<Packing> packings(Model& m, const void* const* from, const int* types) {
  constexpr int EACH = 15;
  const Shape& s = m.s;
  const bool floats = s.float_weights;
  const long q = (long)s.heads * s.head_dim, kv = (long)s.kv_heads * s.head_dim;
  std::vector<Packing> all;
  for (Layer& layer : m.layers) {
    const long first = (&layer - m.layers.data()) * EACH;
    const void* const* w = from + first;
    const int* t = types + first;
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
    all.push_back({layer.qkv, {w[1], w[2], w[3]}, {q, kv, kv}, s.hidden, false, {t[1], t[2], t[3]}, s.head_dim});
    all.push_back({layer.o, {w[7]}, {s.hidden}, q, false, {t[7]}});
    all.push_back({layer.gate_up, {w[12], w[13]}, {s.mlp, s.mlp}, s.hidden, true, {t[12], t[13]}});
    all.push_back({layer.down, {w[14]}, {s.hidden}, s.mlp, false, {t[14]}});
  }
  const void* const* last = from + s.layers * EACH;
  m.embed = last[0], m.embed_type = types[s.layers * EACH];
  copy_floats(m.norm, last[1], s.hidden, floats);
  all.push_back({m.head, {last[2]}, {s.vocab}, s.hidden, false, {types[s.layers * EACH + 2]}});
  return all;
}
