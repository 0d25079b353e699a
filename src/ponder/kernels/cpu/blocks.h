// Groups of 32 inputs before they are packed: blocks of GGUF files, and floats rounded to 4 bits.
#pragma once
#include "grouped.h"

// Types of weights as they are given: FLOATS, or the blocks of a GGUF file by their numbers there.
enum { FLOATS = -1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 8 };

static inline long block_bytes(int type) { return type == Q4_0 ? 18 : type == Q4_1 ? 20 : 34; }

static inline long row_bytes(int type, long K, bool floats) {
  return type == FLOATS ? K * (floats ? 4 : 2) : K / GROUP * block_bytes(type);
}

// The numbers of a group of an output.
struct Numbers {
  half scale = 0, offset = 0;
  int8_t q[GROUP] = {};
};

static inline Numbers read_block(int type, const void* row, long group) {
  Numbers n;
  const uint8_t* at = (const uint8_t*)row + group * block_bytes(type);
  memcpy(&n.scale, at, 2);
  if (type == Q8_0) {
    memcpy(n.q, at + 2, GROUP);
    return n;
  }
  if (type == Q4_1)
    memcpy(&n.offset, at + 2, 2);
  else
    n.offset = narrow_half(-8 * widen_half(n.scale));  // exact
  at += type == Q4_1 ? 4 : 2;
  for (int i = 0; i < 16; i++) n.q[i] = at[i] & 15, n.q[16 + i] = at[i] >> 4;
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
  n.offset = narrow_half(least), n.scale = narrow_half((most - least) / 15);
  const float scale = widen_half(n.scale), offset = widen_half(n.offset), by = scale > 0 && scale < INFINITY ? 1 / scale : 0;
  for (int k = 0; k < GROUP; k++) {
    const float q = rintf((line[k] - offset) * by);
    n.q[k] = q > 15 ? 15 : q > 0 ? (int8_t)q : 0;
  }
  return n;
}
