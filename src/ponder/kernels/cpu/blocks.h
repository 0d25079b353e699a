// Groups of 32 inputs before they are packed: blocks of GGUF files (ggml's ggml-common.h), and floats rounded to 4 bits.
#pragma once
#include "grouped.h"

// Types of weights as they are given: FLOATS, or the blocks of a GGUF file by their numbers there.
// INTERLEAVED is added where a head's rows 2 i and 2 i + 1 are those that rotary embeddings turn together.
enum { INTERLEAVED = 256, FLOATS = -1, Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

static inline long row_bytes(int type, long K, bool floats) {
  switch (type) {
    case Q4_0: return K / GROUP * 18;
    case Q4_1: return K / GROUP * 20;
    case Q5_0: return K / GROUP * 22;
    case Q5_1: return K / GROUP * 24;
    case Q8_0: return K / GROUP * 34;
    case Q4_K: return K / 256 * 144;
    case Q5_K: return K / 256 * 176;
    case Q6_K: return K / 256 * 210;
    default: return K * (floats ? 4 : 2);
  }
}

// A group of an output: w = scale q + offset, the first scale of inputs 0 to 15, the second of the others. Where the
// type has no offset, it is -128 scale, and q is between 0 and 255.
struct Numbers {
  half scale[2] = {}, offset = 0;
  uint8_t q[GROUP] = {};
  float value(int k) const {
    return widen_half(scale[k / 16]) * (q[k] - (offsets ? 0 : 128)) + (offsets ? widen_half(offset) : 0);
  }
  bool offsets = true;
};

static inline half half_at(const uint8_t* at) {
  half x;
  memcpy(&x, at, 2);
  return x;
}

// The K types' scales and offsets are half x 6 or 8 bits: their product is rounded to half precision, 2^-12 of it at most.
static inline Numbers read_superblock(int type, const uint8_t* at, int group) {
  Numbers n;
  if (type == Q6_K) {
    const int side = group / 4, quarter = group % 4;
    const uint8_t *low = at + side * 64 + quarter % 2 * 32, *high = at + 128 + side * 32;
    const float d = widen_half(half_at(at + 208));
    for (int i = 0; i < 2; i++) n.scale[i] = narrow_half(d * (int8_t)at[192 + side * 8 + quarter * 2 + i]);
    for (int k = 0; k < GROUP; k++)
      n.q[k] = ((low[k] >> quarter / 2 * 4 & 15) | (high[k] >> quarter * 2 & 3) << 4) + 128 - 32;
    n.offsets = false;
    return n;
  }
  const uint8_t* packed = at + 4;  // eight scales and eight offsets of 6 bits
  const int j = group % 4;
  const int scale = group < 4 ? packed[j] & 63 : (packed[8 + j] & 15) | (packed[j] >> 2 & 48);
  const int offset = group < 4 ? packed[4 + j] & 63 : packed[8 + j] >> 4 | (packed[4 + j] >> 2 & 48);
  n.scale[0] = n.scale[1] = narrow_half(widen_half(half_at(at)) * scale);
  n.offset = narrow_half(-(widen_half(half_at(at + 2)) * offset));
  const uint8_t* q = at + (type == Q4_K ? 16 : 48) + group / 2 * 32;
  for (int k = 0; k < GROUP; k++) {
    n.q[k] = q[k] >> group % 2 * 4 & 15;
    if (type == Q5_K) n.q[k] |= (at[16 + k] >> group & 1) << 4;
  }
  return n;
}

static inline Numbers read_block(int type, const void* row, long group) {
  if (type >= Q4_K) return read_superblock(type, (const uint8_t*)row + group / 8 * row_bytes(type, 256, false), group % 8);
  Numbers n;
  const uint8_t* at = (const uint8_t*)row + group * row_bytes(type, GROUP, false);
  n.scale[0] = n.scale[1] = half_at(at);
  if (type == Q8_0) {
    for (int k = 0; k < GROUP; k++) n.q[k] = at[2 + k] ^ 0x80;
    n.offsets = false;
    return n;
  }
  const bool stored = type == Q4_1 || type == Q5_1, five = type == Q5_0 || type == Q5_1;
  n.offset = stored ? half_at(at + 2) : narrow_half((five ? -16 : -8) * widen_half(n.scale[0]));  // exact
  at += stored ? 4 : 2;
  const uint8_t* q = at + (five ? 4 : 0);
  for (int k = 0; k < 16; k++) n.q[k] = q[k] & 15, n.q[16 + k] = q[k] >> 4;
  for (int k = 0; five && k < GROUP; k++) n.q[k] |= (at[k / 8] >> k % 8 & 1) << 4;
  return n;
}

// 4 bits between the least and the largest input of the group.
static inline Numbers round_to_4_bits(const float (&line)[GROUP]) {
  Numbers n;
  float least = line[0], most = line[0];
  for (float x : line) {
    least = x < least || x != x ? x : least;
    most = x > most || x != x ? x : most;
  }
  n.offset = narrow_half(least), n.scale[0] = n.scale[1] = narrow_half((most - least) / 15);
  const float scale = widen_half(n.scale[0]), offset = widen_half(n.offset);
  const float by = scale > 0 && scale < INFINITY ? 1 / scale : 0;
  for (int k = 0; k < GROUP; k++) {
    const float q = rintf((line[k] - offset) * by);
    n.q[k] = q > 15 ? 15 : q > 0 ? (uint8_t)q : 0;
  }
  return n;
}
