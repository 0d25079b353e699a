// One step of a decoder over paged rows: token ids in, the next ones out, in one parallel region.
//
// A row is a token at a position of a context whose pages a table names; decoding, chunks of prompts and mixes of both
// are the same. Stages of a layer, with a barrier behind each: norm | q, k, v | attention | o | norm | gate, up | down.
#include <atomic>
#include <initializer_list>
#include <new>

#include "packing.h"
#include "sampling.h"
#include "schedule.h"

namespace {

enum Flags { EXACT = 1, ALONE = 2, INTEGERS = 4 };  // kernels/fused.py
constexpr int FEW = 3;            // rows up to which dot products beat tiles
constexpr int FEW_OF_INT8 = 4, FEW_INTEGERS = 32;  // the same of integers, and tiles of weights that become bfloat16 first
constexpr float LOG2_E = 1.44269504f;

// Panels packed, and rows of the embedding looked up, after which pages of a mapped file are given back. A look-up takes
// 64 KiB of them.
constexpr long PACKED_TOGETHER = 256, LOOKED_UP = 64;

struct Step {
  Model& m;
  Kernel few, many;  // products of few rows, and of more
  bool exact, integers;
  Kernel attending;
  const int* ids;
  int rows;
  Runs runs;
  int outs;
  const int* out_rows;
  const float* rope;
  float* logits;
  std::vector<Adapted> adapted;  // rows with adapters, a few at a time
  Pick* const* picks;  // of the rows whose logits are wanted; null: the logits are all that is
  Schedule schedule;
  std::vector<std::atomic<int>> next;  // per layer and level, the item to be taken
  std::atomic<int> next_pick{0};
  std::atomic<bool> finite{true};
  Barrier barrier;

  Step(Model& model, const Runs& runs, bool share)
      : m(model),
        runs(runs),
        schedule(runs, ROWS / (model.s.heads / model.s.kv_heads), share),
        next(model.s.layers * schedule.levels.size()) {}
};

struct Worker {
  Step& step;
  Model& m;
  Bench& bench;
  int thread, threads;
  int shaped = 0;  // rows of the tiles

  void wait() { step.barrier.wait(threads); }
  int share(int count, int t) const { return (int)((long)count * t / threads); }

  void shape([[maybe_unused]] int rows) {
#if defined(__AMX_BF16__)
    rows = rows < 16 ? rows : 16;
    if (shaped != rows) shape_tiles(32, rows);
    shaped = rows;
#endif
  }

  void multiply(const Product& p, int rows) {
    const Kernel kernel = rows <= FEW ? step.few : step.many;
    int top = 0, bottom = rows, first = share(p.num_panels, thread), last = share(p.num_panels, thread + 1);
    if (p.num_panels < 4 * threads && rows >= 32 * threads) {  // too few panels to share out: share the rows
      const int blocks = (rows + 31) / 32;
      top = share(blocks, thread) * 32, bottom = share(blocks, thread + 1) * 32;
      bottom = bottom < rows ? bottom : rows;
      first = 0, last = p.num_panels;
    }
    if (top >= bottom || first >= last) return;
    shape(rows);
    if (p.form == Form::BFLOAT16) return multiply_as<Form::BFLOAT16>(kernel, p, top, bottom, first, last);
#if defined(INTEGER_PRODUCTS)
    const int few = p.form == Form::INT8 ? FEW_OF_INT8 : FEW_INTEGERS;
    if (step.integers && (step.exact || step.many != AMX || rows <= few)) {
      shaped = 0;
      return with_form(p.form, [&](auto form) {
        multiply_integers<decltype(form)>(p, top, bottom, first, last, bench.panels(), step.many == AMX);
      });
    }
#endif
    if (p.form == Form::INT8 && kernel == AMX && bottom - top <= 32)
      return multiply_as<Form::INT8>(kernel, p, top, bottom, first, last);
    multiply_expanded(kernel, p, top, bottom, first, last);
  }

  static void expand_panel(const Product& p, long panel, bf16* to) {
    const char* from = (const char*)p.panels + panel * panel_bytes(p.form, p.K);
    with_form(p.form, [&](auto form) { expand<decltype(form)>(from, p.K, to); });
  }

  // Panels become bfloat16, a few at a time, and meet many rows.
  void multiply_expanded(Kernel kernel, Product p, int top, int bottom, int first, int last) {
    for (int begin = top; begin < bottom; begin += NEAR)
      for (int panel = first; panel < last; panel += ABREAST) {
        const int count = last - panel < ABREAST ? last - panel : ABREAST;
        for (int i = 0; i < count; i++) expand_panel(p, panel + i, bench.panels() + (long)i * p.K * PANEL);
        Product part = p;
        part.panels = bench.panels();
        if (p.scales) part.scales += panel * PANEL;
        if (p.bias) part.bias += panel * PANEL;
        if (p.out) part.out += panel * PANEL;
        if (p.gated) part.gated += panel * 16;
        multiply_as<Form::BFLOAT16>(kernel, part, begin, begin + NEAR < bottom ? begin + NEAR : bottom, 0, count);
      }
  }

  template <Form FORM>
  void multiply_as([[maybe_unused]] Kernel kernel, const Product& p, int top, int bottom, int first, int last) {
#if defined(__AMX_BF16__)
    if (kernel == AMX) return multiply_tiles<FORM>(p, top, bottom, first, last, bench.panels());
#endif
#if defined(__AVX512BF16__)
    if (kernel == AVX512) return multiply_vectors<Dotted>(p, top, bottom, first, last);
#endif
    multiply_vectors<Widened>(p, top, bottom, first, last);
  }

  void norm_row(const float* x, const float* weight, bf16* to) const {
    vf squares[2] = {};
    long i = 0;
    for (; i + 2 * W <= m.D; i += 2 * W)
      for (int c = 0; c < 2; c++) {
        vf v = load<vf>(x + i + c * W);
        squares[c] += v * v;
      }
    const float scale = 1.0f / sqrtf(sum(squares[0] + squares[1]) / m.s.hidden + m.s.eps);
    for (i = 0; i < m.D; i += W) store(to + i, narrow(load<vf>(x + i) * scale * load<vf>(weight + i)));
  }

  void embed() {
    for (int row = share(step.rows, thread); row < share(step.rows, thread + 1); row++) {
      float* x = m.x + row * m.ld_x;
      copy_row(x, step.ids[row]);
      for (long i = m.s.hidden; i < m.D; i++) x[i] = 0;
    }
  }
  void copy_row(float* x, long id) const {
    const long begin = id * m.s.hidden;
    if (m.embed_type != FLOATS)
      copy_blocks(x, (const char*)m.embed + id * row_bytes(m.embed_type, m.s.hidden, false));
    else if (m.s.float_weights)
      memcpy(x, (const float*)m.embed + begin, m.s.hidden * sizeof(float));
    else
      for (int i = 0; i < m.s.hidden; i++) x[i] = widen(((const bf16*)m.embed)[begin + i]);
  }

  void copy_blocks(float* x, const void* row) const {
    for (long group = 0; group < m.s.hidden / GROUP; group++) {
      const Numbers n = read_block(m.embed_type, row, group);
      for (int k = 0; k < GROUP; k++) x[group * GROUP + k] = n.value(k);
    }
  }

  void norm(const float* weight) {
    for (int row = share(step.rows, thread); row < share(step.rows, thread + 1); row++)
      norm_row(m.x + row * m.ld_x, weight, m.normed + row * m.ld_normed);
    wait();
  }

  // Norm and rotation of one head, in place.
  void turn(float* head, const float* weight, const float* angles) const {
    const int d = m.s.head_dim, half = d / 2;
    if (m.s.qk_norm) {
      vf squares = {};
      for (int i = 0; i < d; i += W) {
        vf v = load<vf>(head + i);
        squares += v * v;
      }
      const float scale = 1.0f / sqrtf(sum(squares) / d + m.s.eps);
      for (int i = 0; i < d; i += W) store(head + i, load<vf>(head + i) * scale * load<vf>(weight + i));
    }
    for (int i = 0; i < half; i++) {
      const float a = head[i], b = head[i + half], cos = angles[i], sin = angles[i + half];
      head[i] = a * cos - b * sin;
      head[i + half] = b * cos + a * sin;
    }
  }

  // A row's queries of one key/value head, turned, go to `queries`.
  void prepare_queries(int layer, int row, int position, int kv_head, bf16* queries, long stride) const {
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads;
    for (int g = 0; g < group; g++) {
      float* q = m.qkv + row * m.ld_qkv + (kv_head * group + g) * d;
      turn(q, m.layers[layer].q_norm, step.rope + (long)position * d);
      for (int i = 0; i < d; i += W) store(queries + g * stride + i, narrow(load<vf>(q + i)));
    }
  }

  // A row's key of one head, turned, and its value go into their page.
  void prepare_keys(int layer, int row, int position, const int* table, int kv_head) const {
    const int d = m.s.head_dim, slot = position % PAGE;
    float* k = m.qkv + row * m.ld_qkv + (m.s.heads + kv_head) * d;
    const float* v = k + m.s.kv_heads * d;
    turn(k, m.layers[layer].k_norm, step.rope + (long)position * d);
    bf16 rounded[WIDEST];
    for (int i = 0; i < d; i += W) store(rounded + i, narrow(load<vf>(k + i)));
    bf16* keys = m.head_of(layer, kv_head) + table[position / PAGE] * m.page;
    for (int i = 0; i < d; i += 2) memcpy(keys + i * PAGE + slot * 2, rounded + i, 4);
    for (int i = 0; i < d; i += W) store(rounded + i, narrow(load<vf>(v + i)));
    bf16* values = keys + PAGE * d + slot / 2 * 2 * d + slot % 2;
    for (int i = 0; i < d; i++) values[2 * i] = rounded[i];
  }

  void prepare_rows(int layer) {
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads, all = step.rows * m.s.kv_heads;
    const Runs& runs = step.runs;
    int run = 0, first = 0;  // the run of a row, and its first row
    for (int at = share(all, thread); at < share(all, thread + 1); at++) {
      const int row = at / m.s.kv_heads, kv_head = at % m.s.kv_heads;
      while (row >= first + runs.lengths[run]) first += runs.lengths[run++];
      const int position = runs.starts[run] + row - first;
      prepare_queries(layer, row, position, kv_head, m.queries + ((long)row * m.s.heads + kv_head * group) * d, d);
      if (!step.schedule.singles) prepare_keys(layer, row, position, runs.tables[run], kv_head);
    }
    wait();
  }

  void take_queries(int at, int row, int kv_head) {
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads;
    const bf16* from = m.queries + ((long)row * m.s.heads + kv_head * group) * d;
    for (int g = 0; g < group; g++) memcpy(bench.queries[at * group + g], from + g * d, d * sizeof(bf16));
  }

  // The state of a row's attention to one key/value head: sums, then maximum and mass, for each query head.
  float* state(int row, int kv_head) const {
    return m.states + ((long)row * m.s.kv_heads + kv_head) * (m.s.heads / m.s.kv_heads) * (m.s.head_dim + 2);
  }
  void load_state(int at, int row, int kv_head) {
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads;
    const float* from = state(row, kv_head);
    for (int i = at * group; i < (at + 1) * group; i++, from += d + 2) {
      memcpy(bench.sums[i], from, d * sizeof(float));
      bench.top[i] = from[d], bench.mass[i] = from[d + 1];
    }
  }
  void save_state(int at, int row, int kv_head) const {
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads;
    float* to = state(row, kv_head);
    for (int i = at * group; i < (at + 1) * group; i++, to += d + 2) {
      memcpy(to, bench.sums[i], d * sizeof(float));
      to[d] = bench.top[i], to[d + 1] = bench.mass[i];
    }
  }

  // The first pages that an item reads.
  Block opening(int layer, const Item& item, int kv_head) const {
    const Span* span = item.span < 0 ? nullptr : &step.schedule.spans[item.span];
    const int first = span ? span->first : step.schedule.skipped[item.run];
    const int last = span ? span->last : (item.position + item.count + PAGE - 1) / PAGE;
    const Pages pages{m.head_of(layer, kv_head), m.page, span ? span->table : step.runs.tables[item.run], m.s.head_dim};
    return {pages, first, std::min(last, first + BLOCK)};
  }

  void attend_span(int layer, const Item& item, int kv_head, const Block& after) {
    const Span& span = step.schedule.spans[item.span];
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads, rows = item.count * group;
    begin_attention(bench, rows, d);
    for (int i = 0; i < item.count; i++) {
      take_queries(i, span.rows[item.row + i], kv_head);
      if (span.level) load_state(i, span.rows[item.row + i], kv_head);
    }
    for (int i = 0; i < rows; i++) bench.seen[i] = span.last * PAGE;
    const Pages pages{m.head_of(layer, kv_head), m.page, span.table, d};
    attend(step.attending, bench, rows, pages, span.first, span.last, LOG2_E / sqrtf(d), after);
    for (int i = 0; i < item.count; i++) save_state(i, span.rows[item.row + i], kv_head);
  }

  void attend_run(int layer, const Item& item, int kv_head, const Block& after) {
    const int d = m.s.head_dim, group = m.s.heads / m.s.kv_heads, rows = item.count * group;
    const Pages pages{m.head_of(layer, kv_head), m.page, step.runs.tables[item.run], d};
    const int skipped = step.schedule.skipped[item.run];
    begin_attention(bench, rows, d);
    if (step.schedule.singles) prepare_keys(layer, item.row, item.position, pages.table, kv_head);
    if (alone()) prepare_queries(layer, item.row, item.position, kv_head, bench.queries[0], WIDEST + 32);
    for (int i = 0; i < item.count; i++) {
      if (!alone()) take_queries(i, item.row + i, kv_head);
      if (skipped) load_state(i, item.row + i, kv_head);
    }
    for (int i = 0; i < rows; i++) bench.seen[i] = item.position + i / group + 1;
    const int last = (item.position + item.count + PAGE - 1) / PAGE;
    attend(step.attending, bench, rows, pages, skipped, last, LOG2_E / sqrtf(d), after);
    for (int i = 0; i < rows; i++) {
      bf16* to = m.attended + (item.row + i / group) * m.ld_attended + (kv_head * group + i % group) * d;
      const float scale = 1.0f / bench.mass[i];
      for (int c = 0; c < d; c += W) store(to + c, narrow(load<vf>(bench.sums[i] + c) * scale));
    }
  }

  // Each row has a context for itself: whoever attends from it prepares it, and one barrier is saved.
  bool alone() const { return step.schedule.singles && step.schedule.spans.empty(); }

  void attention(int layer) {
    if (!alone()) prepare_rows(layer);
    const int levels = (int)step.schedule.levels.size(), heads = m.s.kv_heads;
    for (int level = 0; level < levels; level++) {
      const std::vector<Item>& items = step.schedule.levels[level];
      const int all = (int)items.size() * heads;
      std::atomic<int>& next = step.next[layer * levels + level];
      const auto take = [&] { return next.fetch_add(1, std::memory_order_relaxed); };
      for (int at = take(), then; at < all; at = then < all ? then : take()) {
        // Taken ahead, so that it can be announced; but where few are left, another thread would go without.
        then = all - at > 4 * threads ? take() : all;
        const Item& item = items[at / heads];
        const Block after = then < all ? opening(layer, items[then / heads], then % heads) : Block{};
        item.span < 0 ? attend_run(layer, item, at % heads, after) : attend_span(layer, item, at % heads, after);
      }
      wait();
    }
    shaped = 0;
  }

  void project(const bf16* a, long lda, const Matrix& w, Into into, const float* bias, float* out, long ldo) {
    const int panels = (int)(w.outputs / PANEL);
    multiply({a, lda, w.form, w.panels, w.scales, (int)w.K, panels, into, bias, out, ldo, m.gated, m.ld_gated}, step.rows);
    wait();
  }

  // What adapters make of the rows `x`, for `count` projections from `first` on.
  void make_lows(int layer, int first, int count, const bf16* x, long ldx, long K) {
    const int pieces = (int)step.adapted.size();
    for (int i = share(pieces, thread); i < share(pieces, thread + 1); i++) {
      const Adapted& piece = step.adapted[i];
      float* low = m.low.data() + piece.first * m.widest_low;
      for (int part = first; part < first + count; part++) {
        const LowRank& p = piece.adapter[layer * PROJECTIONS + part];
        make_low(p, x + piece.first * ldx, ldx, K, piece.count, low, m.widest_low);
        low += p.rank;
      }
    }
  }

  // Panel i of projection first + part gets its share at out + column(part, i), once `make_lows` is done.
  template <class Column>
  void add_lows(int layer, int first, int part, int begin, int end, float* out, long ldo, Column column) {
    for (const Adapted& piece : step.adapted) {
      const LowRank* all = piece.adapter + layer * PROJECTIONS + first;
      if (!all[part].rank) continue;
      const float* low = m.low.data() + piece.first * m.widest_low;
      for (int before = 0; before < part; before++) low += all[before].rank;
      for (int panel = begin; panel < end; panel++)
        for (int row = 0; row < piece.count; row++)
          add_low(all[part], panel, low + row * m.widest_low, out + (piece.first + row) * ldo + column(panel));
    }
  }

  // `project`, and what adapters add to its parts: `widths` of them in `out`, one after the other.
  void project_adapted(const bf16* a, long lda, const Matrix& w, Into into, const float* bias, float* out, long ldo,
                       int layer, int first, std::initializer_list<int> widths) {
    if (!step.adapted.empty()) make_lows(layer, first, (int)widths.size(), a, lda, w.K);
    project(a, lda, w, into, bias, out, ldo);
    if (step.adapted.empty()) return;
    int part = 0, left = 0;
    for (int width : widths) {
      const int panels = (width + LANES - 1) / LANES;
      add_lows(layer, first, part++, share(panels, thread), share(panels, thread + 1), out + left, ldo,
               [](int panel) { return panel * LANES; });
      left += width;
    }
    wait();
  }

  // Gates and values, with what adapters add to both before they meet.
  void project_gated(const Layer& layer, int at) {
    if (step.adapted.empty()) return project(m.normed, m.ld_normed, layer.gate_up, Into::GATED, nullptr, nullptr, 0);
    const long ld = 2 * m.F + LANES;
    float* wide = m.wide.data();
    make_lows(at, GATE_PROJ, 2, m.normed, m.ld_normed, layer.gate_up.K);
    project(m.normed, m.ld_normed, layer.gate_up, Into::STORE, nullptr, wide, ld);
    const int panels = (m.s.mlp + LANES - 1) / LANES, begin = share(panels, thread), end = share(panels, thread + 1);
    for (int part = 0; part < 2; part++)
      add_lows(at, GATE_PROJ, part, begin, end, wide + part * LANES, ld, [](int panel) { return panel * PANEL; });
    const Product gates{nullptr, 0, Form::BFLOAT16, nullptr, nullptr, 0, 0, Into::GATED, nullptr, nullptr, 0, m.gated, m.ld_gated};
    const int all = (int)(m.F / LANES), last = thread + 1 == threads ? all : end;  // of padding there are zeros
    for (int row = 0; row < step.rows; row++)
      for (int panel = begin; panel < last; panel++) finish(gates, row, panel, wide + row * ld + panel * PANEL);
    wait();
  }

  void run() {
    embed();
    wait();
    for (int at = 0; at < m.s.layers; at++) {
      const Layer& layer = m.layers[at];
      norm(layer.norm1);
      project_adapted(m.normed, m.ld_normed, layer.qkv, Into::STORE, layer.qkv_bias, m.qkv, m.ld_qkv, at, Q_PROJ,
                      {m.s.heads * m.s.head_dim, m.s.kv_heads * m.s.head_dim, m.s.kv_heads * m.s.head_dim});
      attention(at);
      project_adapted(m.attended, m.ld_attended, layer.o, Into::ADD, layer.o_bias, m.x, m.ld_x, at, O_PROJ, {m.s.hidden});
      norm(layer.norm2);
      project_gated(layer, at);
      project_adapted(m.gated, m.ld_gated, layer.down, Into::ADD, nullptr, m.x, m.ld_x, at, DOWN_PROJ, {m.s.hidden});
    }
    for (int i = share(step.outs, thread); i < share(step.outs, thread + 1); i++)
      norm_row(m.x + step.out_rows[i] * m.ld_x, m.norm, m.normed + i * m.ld_normed);
    wait();
    if (step.outs)
      multiply({m.normed, m.ld_normed, m.head.form, m.head.panels, m.head.scales, (int)m.D, (int)(m.V / PANEL), Into::STORE, nullptr,
                step.logits, m.V, nullptr, 0}, step.outs);
    if (!step.picks) return;
    wait();
    for (int i; (i = step.next_pick.fetch_add(1, std::memory_order_relaxed)) < step.outs;)
      if (step.picks[i] && !m.choosers[thread].choose(step.logits + i * m.V, *step.picks[i])) step.finite = false;
  }
};

void choose_kernels(Step& step, int path, bool exact, bool integers) {
  step.few = step.many = step.attending = (Kernel)path;
  step.exact = exact, step.integers = integers;
  if (path != AMX) return;
  if (!exact) step.few = AVX512;
  if (step.m.s.head_dim % 32) step.attending = AVX512;  // tiles take 32 dimensions at a time
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Bits of the kernels that this library holds and this process may use: 1 portable, 2 AVX-512, 4 AMX; 8: AMX is there,
// but the system does not permit it. Then those of integers: 16 maddubs, 32 AVX-VNNI, 64 AVX-512 VNNI.
int ponder_kernels() {
  int found = 1 << PORTABLE;
#if defined(__AVX512BF16__)
  found |= 1 << AVX512;
#if defined(__AMX_BF16__)
  found |= tiles_permitted() ? 1 << AMX : 8;
#endif
#endif
#if defined(INTEGER_PRODUCTS)
#if defined(__AVX512VNNI__)
  found |= 64;
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
  found |= 32;
#else
  found |= 16;
#endif
#endif
  return found;
}

// `forms`: as `Model` takes them.
Model* ponder_open(const Shape* shape, const int* forms, long num_pages) {
  Model* m = new (std::nothrow) Model(*shape, forms);
  if (!m) return nullptr;
  if (m->weights.map(m->lay_out_weights(nullptr)) && m->pool.map(num_pages * m->page * sizeof(bf16))) {
    m->lay_out_weights(m->weights.at);
    return m;
  }
  delete m;
  return nullptr;
}

void ponder_close(Model* m) { delete m; }

void ponder_clear(Model* m) { m->pool.clear(); }

void ponder_copy(Model* m, int source, int target) {
  bf16* pool = (bf16*)m->pool.at;
  memcpy(pool + target * m->page, pool + source * m->page, m->page * sizeof(bf16));
}

// `from`, `types`: as `packings` takes them. The embedding is read in place later on. `mapped`: blocks lie in a private
// mapping of a file, never written to; its pages are given back on the way.
void ponder_pack(Model* m, const void* const* from, const int* types, int threads, int mapped) {
  for (const Packing& each : packings(*m, from, types)) {
    for (long begin = 0; begin < each.count(); begin += PACKED_TOGETHER) {
      const long end = std::min(begin + PACKED_TOGETHER, each.count());
#pragma omp parallel for num_threads(threads) schedule(static)
      for (long panel = begin; panel < end; panel++) pack_panel(each, panel, m->s.float_weights);
      for (int part = 0; mapped && part < 3; part++)
        give_back(each.parts[part], each.types[part], each.heights[part], each.K);
    }
  }
  m->mapped = mapped;
}

// `of`: the adapter of each run of the next step, PROJECTIONS for each layer, or null. `width`: the ranks, together, that
// one product has at most. They may go when the step is over.
void ponder_adapt(Model* m, int runs, const LowRank* const* of, long width) {
  m->adapters.assign(of, of + runs), m->widest_low = width;
}

// `flags`: EXACT, a row's logits depend on its own context alone; ALONE, shared pages are read for each context anew;
// INTEGERS, weights of fewer bits meet integers.
// `rows` tokens in `chunks` runs: run i is lengths[i] tokens from position starts[i] on, in the pages of tables[i].
// `rope`: for each position the cosines, then the sines of its angles. Logits of the rows out_rows go to `logits`: its
// rows are the vocabulary padded to 32 wide, and there are up to 15 more of them. `picks`, where it is not null, has one
// for each of them, to be made, or null where its logits are all that is wanted. 0, or what went wrong: 1 for lack of memory or threads and 2 for an id beyond the
// vocabulary (nothing was done), 3 for logits that are not finite (and no pick made from them).
int ponder_run(Model* m, int threads, int path, int flags, int rows, const int* ids, int chunks,
               const int* const* tables, const int* starts, const int* lengths, int outs, const int* out_rows,
               const float* rope, float* logits, Pick* const* picks) try {
  const std::vector<const LowRank*> adapters = std::move(m->adapters);
  m->adapters.clear();
  if (!m->make_room(rows, threads)) return 1;
  while (picks && (int)m->choosers.size() < threads) m->choosers.emplace_back(m->s.vocab);
  for (int row = 0; row < rows; row++)
    if (ids[row] < 0 || ids[row] >= m->s.vocab) return 2;
  const bool exact = flags & EXACT;
  Step step(*m, {chunks, tables, starts, lengths}, !exact && !(flags & ALONE));
  choose_kernels(step, path, exact, flags & INTEGERS);
  step.ids = ids, step.rows = rows, step.outs = outs, step.out_rows = out_rows, step.rope = rope, step.logits = logits;
  step.picks = picks;
  if (!adapters.empty()) {
    step.adapted = adapted_rows(adapters.data(), lengths, chunks);
    m->low.resize(std::max(m->low.size(), (size_t)rows * m->widest_low));
    m->wide.resize(std::max(m->wide.size(), (size_t)padded(rows) * (2 * m->F + LANES)));
  }
  m->team.run(threads, [&](int thread) {
    Worker worker{step, *m, *m->benches[thread], thread, threads};
    worker.run();
#if defined(__AMX_BF16__)
    if (path == AMX) _tile_release();
#endif
  });
  m->looked_up += rows;
  if (m->mapped && m->looked_up >= LOOKED_UP) {
    give_back(m->embed, m->embed_type, m->s.vocab, m->s.hidden);
    m->looked_up = 0;
  }
  return step.finite ? 0 : 3;
} catch (const std::exception&) {  // no memory, or no thread
  return 1;
}

// Picks of rows of logits that `ponder_run` gave: pick i is made of row out_rows[i]. Returns as `ponder_run` does.
int ponder_pick(Model* m, int outs, const int* out_rows, const float* logits, Pick* const* picks) try {
  if (m->choosers.empty()) m->choosers.emplace_back(m->s.vocab);
  bool finite = true;
  for (int i = 0; i < outs; i++) finite &= m->choosers[0].choose(logits + out_rows[i] * m->V, *picks[i]);
  return finite ? 0 : 3;
} catch (const std::bad_alloc&) {
  return 1;
}

// The picks of `rows` rows of logits that stand `stride` apart. Returns as `ponder_run` does.
int ponder_choose(int vocab, int rows, const float* logits, long stride, Pick* const* picks) try {
  Chooser chooser(vocab);
  bool finite = true;
  for (int i = 0; i < rows; i++) finite &= chooser.choose(logits + i * stride, *picks[i]);
  return finite ? 0 : 3;
} catch (const std::bad_alloc&) {
  return 1;
}

}
#pragma GCC visibility pop
