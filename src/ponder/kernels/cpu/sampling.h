// From a row of logits to one id, by the rules of engine/sampling.py: the same uniform number for the same seed and
// index, the same order of truncation, equal weights by id, cumulative sums in double. A row is one thread's, so that
// neither its neighbours nor the number of threads can change it.
//
// Nothing is sorted whole. Each group of neighbouring ids knows the largest score at each place of its vectors, its
// peaks: the k-th largest peak is a bound below which none of the k likeliest ids lies. What lies above a bound is
// gathered as keys (weight above id) and cut by quickselect, by count or by mass.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

constexpr int MOST_LIKELY = 20;  // ids that a pick can name

extern "C" struct Pick {  // kernels/sampling.py: the same fields in the same order
  uint64_t seed, index;
  double top_p;
  const int* bias_ids;
  const float* biases;     // divided by the temperature
  const uint8_t* allowed;  // by id; null: all
  const int *banned, *closing, *penalty_ids, *repeated;
  const float* penalties;  // added to the scores of penalty_ids, divided by the temperature
  float temperature, min_p, repetition;  // repetition: 1: off
  int top_k, num_biases, num_banned, num_closing, num_penalties, num_repeated;
  int forced, instead;  // forced: -1 for none. instead: what takes the place of one of `closing`
  int num_top, confidence_top;
  // What came of it. put_in: the id was forced, or took another's place.
  int id, put_in;
  float logprob, confidence;
  int top_ids[MOST_LIKELY];
  float top_logprobs[MOST_LIKELY];
};

typedef float half_f __attribute__((vector_size(2 * W)));
typedef double half_d __attribute__((vector_size(4 * W)));
typedef uint64_t Key;  // a number's bits above its id's complement: the larger key is the likelier id

static inline uint64_t mixed(uint64_t x) {  // SplitMix64 (Steele et al., OOPSLA 2014, figure 17)
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
static inline double uniform(uint64_t seed, uint64_t index) {
  return (double)(mixed(mixed(seed) + (index + 1) * 0x9E3779B97F4A7C15u) >> 12) * 0x1p-52;
}

constexpr float NEVER = -INFINITY, NEGLIGIBLE = -87.0f;  // exponents; below the second a weight is 0
static inline vf weights(vf scores, float max) {
  const vf x = scores - max;
  return x < NEGLIGIBLE ? vf{} : exponential(x);
}

static inline Key key(uint32_t bits, uint32_t id) { return (Key)bits << 32 | ~id; }
static inline int id_of(Key key) { return (int)~(uint32_t)key; }
static inline double weight_of(Key key) {
  const uint32_t bits = key >> 32;
  float weight;
  memcpy(&weight, &bits, 4);
  return weight;
}
static inline vu in_order(vf x) {  // bits that order as the floats do
  vu bits = (vu)x;
  bits = bits == 0x80000000u ? vu{} : bits;  // -0 is 0
  return bits ^ ((vu)((vi)bits >> 31) | 0x80000000u);
}

// Keys in the order of their weights without sorting them: their masses by bucket, then one bucket at a time.
class Ranking {
  static constexpr int FINE = 19, BUCKETS = 24 << (23 - FINE);  // 16 to an octave; what weighs less is in the last one
  const Key* keys;
  long count;
  double masses[BUCKETS] = {};
  std::vector<Key>& room;

  static int bucket_of(Key key) { return std::min<int>((0x3f800000u - (uint32_t)(key >> 32)) >> FINE, BUCKETS - 1); }

 public:
  Ranking(const Key* keys, long count, std::vector<Key>& room) : keys(keys), count(count), room(room) {
    for (long i = 0; i < count; i++) masses[bucket_of(keys[i])] += weight_of(keys[i]);
  }

  double mass() const {
    double sum = 0;
    for (double each : masses) sum += each;
    return sum;
  }

  struct Place {
    Key key;
    double mass;  // of the key and all before it
  };
  // The key with which the sum of the weights, the likeliest first, reaches `mass` (`beyond` it, where that is asked
  // for); the last one, where rounding keeps the sum below.
  Place reach(double mass, bool beyond) const {
    const auto reached = [&](double sum) { return beyond ? sum > mass : sum >= mass; };
    double before = 0;
    int bucket = 0, last = BUCKETS - 1;
    while (last && masses[last] == 0) last--;
    while (bucket < last && !reached(before + masses[bucket])) before += masses[bucket++];
    Key* first = room.data();
    Key* end = first;
    for (long i = 0; i < count; i++) *end = keys[i], end += bucket_of(keys[i]) == bucket;
    while (end - first > 16) {
      const Key a = *first, b = first[(end - first) / 2], c = end[-1];
      const Key pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));  // keys differ: both sides hold some
      Key* middle = std::partition(first, end, [=](Key k) { return k > pivot; });
      double sum = before;
      for (const Key* k = first; k < middle; k++) sum += weight_of(*k);
      if (reached(sum)) end = middle;
      else first = middle, before = sum;
    }
    std::sort(first, end, std::greater<Key>());
    while (!reached(before += weight_of(*first)) && first + 1 < end) first++;
    return {*first, before};
  }
};

// One thread's room.
class Chooser {
  struct Scores {
    std::vector<float> at, peaks;
    std::vector<double> masses;  // of each group
    float max;
    double total;  // of the weights
  };

  long vocab, padded, group, groups;  // padded to whole vectors; ids in a group
  Scores scaled, adjusted;
  std::vector<float> bounds;
  std::vector<Key> keys, room;

 public:
  explicit Chooser(int vocab) : vocab(vocab), padded((vocab + W - 1) / W * W) {
    group = W * (vocab < 32768 ? 16 : 128), groups = (vocab + group - 1) / group;
    for (Scores* scores : {&scaled, &adjusted}) {
      scores->at.assign(groups * group, NEVER);
      scores->peaks.resize(groups * W), scores->masses.resize(groups);
    }
    bounds.resize(groups * W), keys.resize(groups * group), room.resize(groups * group + 1);
  }

  // False, and no pick, where the logits are not finite: one is NaN or infinity, or none is more than -infinity.
  bool choose(const float* logits, Pick& pick) {
    const float temperature = pick.temperature > 0 ? pick.temperature : 1;
    if (!scale(logits, temperature)) return false;
    weigh(scaled);
    const double log_total = std::log(scaled.total);
    const auto logprob = [&](int id) { return (float)((double)scaled.at[id] - scaled.max - log_total); };
    pick.id = pick.forced;
    if (pick.forced < 0) {
      const bool adjusts =
          pick.num_biases || pick.num_banned || pick.allowed || pick.num_penalties || pick.num_repeated;
      if (adjusts) adjust(pick);
      pick.id = sample(adjusts ? adjusted : scaled, pick);
    }
    pick.put_in = pick.forced >= 0;
    if (!pick.put_in && pick.instead >= 0 && std::count(pick.closing, pick.closing + pick.num_closing, pick.id))
      pick.put_in = 1, pick.id = pick.instead;
    pick.logprob = logprob(pick.id);
    const long wanted = std::min<long>(std::max(pick.num_top, pick.confidence_top), vocab);
    if (!wanted) return true;
    likeliest(wanted);
    for (int i = 0; i < pick.num_top; i++)
      pick.top_ids[i] = id_of(keys[i]), pick.top_logprobs[i] = logprob(id_of(keys[i]));
    const long several = std::min<long>(pick.confidence_top, vocab);
    double sum = 0;
    for (long i = 0; i < several; i++) sum += logprob(id_of(keys[i]));
    pick.confidence = several ? -sum / several : 0;
    return true;
  }

 private:
  bool scale(const float* logits, float temperature) {
    float* at = scaled.at.data();
    float tail[W];
    std::fill(tail, tail + W, NEVER);
    memcpy(tail, logits + vocab / W * W, vocab % W * sizeof(float));
    vi bad = {};
    for (long i = 0; i < groups; i++) {
      vf peak = splat(NEVER);
      const long end = std::min((i + 1) * group, padded);
      for (long j = i * group; j < end; j += W) {
        vf x = load<vf>(j + W <= vocab ? logits + j : tail);
        bad |= ~(x < INFINITY);
        if (temperature != 1) x = x / temperature;
        store(at + j, x);
        peak = larger(x, peak);
      }
      store(&scaled.peaks[i * W], peak);
    }
    int any = 0;
    for (int i = 0; i < W; i++) any |= bad[i];
    return !any && largest(scaled) > NEVER;
  }

  float largest(Scores& scores) const {
    return scores.max = *std::max_element(scores.peaks.begin(), scores.peaks.end());
  }

  void adjust(const Pick& pick) {
    float* at = adjusted.at.data();
    const float* from = scaled.at.data();
    if (pick.allowed)
      for (long i = 0; i < vocab; i++) at[i] = pick.allowed[i] ? from[i] : NEVER;
    else
      memcpy(at, from, vocab * sizeof(float));
    for (int i = 0; i < pick.num_repeated; i++) {
      float& score = at[pick.repeated[i]];
      score = score > 0 ? score / pick.repetition : score * pick.repetition;
    }
    for (int i = 0; i < pick.num_penalties; i++) at[pick.penalty_ids[i]] += pick.penalties[i];
    for (int i = 0; i < pick.num_biases; i++) at[pick.bias_ids[i]] += pick.biases[i];
    for (int i = 0; i < pick.num_banned; i++) at[pick.banned[i]] = NEVER;
    for (long i = 0; i < groups; i++) {
      vf peak = splat(NEVER);
      for (long j = i * group; j < (i + 1) * group; j += W) peak = larger(load<vf>(at + j), peak);
      store(&adjusted.peaks[i * W], peak);
    }
    if (largest(adjusted) > NEVER) weigh(adjusted);
  }

  void weigh(Scores& scores) const {
    scores.total = 0;
    for (long i = 0; i < groups; i++) {
      half_d sums[2] = {};
      for (long j = i * group; j < (i + 1) * group; j += W) {
        float w[W];
        store(w, weights(load<vf>(&scores.at[j]), scores.max));
        for (int half = 0; half < 2; half++) sums[half] += __builtin_convertvector(load<half_f>(w + half * W / 2), half_d);
      }
      sums[0] += sums[1];
      double mass = 0;
      for (int lane = 0; lane < W / 2; lane++) mass += sums[0][lane];
      scores.total += scores.masses[i] = mass;
    }
  }

  int sample(const Scores& scores, const Pick& pick) {
    if (pick.temperature == 0 || scores.max == NEVER) return first_of_the_largest(scores);
    const double number = uniform(pick.seed, pick.index);
    if (!pick.top_k && pick.top_p >= 1 && !(pick.min_p > 0)) return draw(scores, number);
    return draw_truncated(scores, pick, number);
  }

  int first_of_the_largest(const Scores& scores) const {
    for (long i = 0; i < groups; i++)
      if (std::count(&scores.peaks[i * W], &scores.peaks[(i + 1) * W], scores.max))
        return (int)(std::find(scores.at.begin() + i * group, scores.at.end(), scores.max) - scores.at.begin());
    return 0;
  }

  int draw(const Scores& scores, double number) const {
    const double target = number * scores.total;
    double before = 0;
    long at = 0;
    while (at < groups - 1 && before + scores.masses[at] <= target) before += scores.masses[at++];
    long possible = 0;  // the last id that can be drawn; the answer where rounding takes the sum short of the target
    for (long j = at * group; j < (at + 1) * group; j += W) {
      float w[W];
      store(w, weights(load<vf>(&scores.at[j]), scores.max));
      for (int lane = 0; lane < W; lane++) {
        if (w[lane] > 0) possible = j + lane;
        if ((before += w[lane]) > target) return (int)(j + lane);
      }
    }
    return (int)possible;
  }

  int draw_truncated(const Scores& scores, const Pick& pick, double number) {
    float bound = scores.max + NEGLIGIBLE;
    if (pick.top_k) bound = std::max(bound, peak_of(scores, pick.top_k));
    // Ids below a V-th of what top-p may leave out are left out all together.
    else if (pick.top_p < 1) bound = std::max(bound, edge(scores, (1 - pick.top_p) * scores.total / vocab));
    if (pick.min_p > 0 && !(pick.top_k && pick.top_p < 1)) bound = std::max(bound, edge(scores, pick.min_p));
    long count = gather(scores, bound, [&](vf x) { return (vu)weights(x, scores.max); });
    double mass = scores.total;
    if (pick.top_k && pick.top_k < vocab) {
      count = first(count, pick.top_k);
      mass = 0;
      for (long i = 0; i < count; i++) mass += weight_of(keys[i]);
    }
    if (pick.min_p > 0) {  // the likeliest id weighs 1
      const auto light = [&](Key k) { return weight_of(k) < pick.min_p; };
      count = std::remove_if(keys.begin(), keys.begin() + count, light) - keys.begin();
    }
    const Ranking ranking(keys.data(), count, room);
    Ranking::Place last{0, ranking.mass()};
    if (pick.top_p < 1) last = ranking.reach(pick.top_p * mass, false);
    return id_of(std::max(ranking.reach(number * last.mass, true).key, last.key));
  }

  // The score at which a weight lies, or a little less.
  static float edge(const Scores& scores, double weight) { return (float)(scores.max + std::log(weight) - 1e-4); }

  float peak_of(const Scores& scores, long rank) {  // no more than the score of that rank
    if (rank > (long)bounds.size()) return NEVER;
    bounds = scores.peaks;
    std::nth_element(bounds.begin(), bounds.begin() + (rank - 1), bounds.end(), std::greater<float>());
    return bounds[rank - 1];
  }

  template <class Bits> long gather(const Scores& scores, float bound, Bits bits) {
    long count = 0;
    for (long i = 0; i < groups; i++) {
      bool any = false;
      for (int lane = 0; lane < W; lane++) any |= scores.peaks[i * W + lane] >= bound;
      if (!any) continue;
      for (long j = i * group; j < std::min((i + 1) * group, vocab); j += W) {
        const vf x = load<vf>(&scores.at[j]);
        uint32_t all[W];
        store(all, bits(x));
        for (int lane = 0; lane < W; lane++) {
          keys[count] = key(all[lane], (uint32_t)(j + lane));
          count += (x[lane] >= bound) & (j + lane < vocab);
        }
      }
    }
    return count;
  }

  // Of `count` keys the `most` largest come first. Returns how many.
  long first(long count, long most) {
    if (count <= most) return count;
    std::nth_element(keys.begin(), keys.begin() + (most - 1), keys.begin() + count, std::greater<Key>());
    return most;
  }

  // The keys of the so many largest scores, the largest first.
  void likeliest(long wanted) {
    first(gather(scaled, peak_of(scaled, wanted), [](vf x) { return in_order(x); }), wanted);
    std::sort(keys.begin(), keys.begin() + wanted, std::greater<Key>());
  }
};
