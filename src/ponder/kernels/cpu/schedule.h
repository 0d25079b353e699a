// Which rows attend together, and to what.
//
// Leading pages that several contexts hold are read once for all of them: their rows form spans, nested where some of
// them share more. What a span gives is a state (maximum, mass, weighted sum) that the rows go on from, one level after
// the other; the last level is each chunk's own pages.
#pragma once
#include <algorithm>
#include <map>
#include <vector>

#include "attention.h"

constexpr int WORTH_SHARING = 64;  // pages that a span must save, at least

struct Runs {  // run i is lengths[i] tokens from position starts[i] on, in the pages of tables[i]
  int count;
  const int* const* tables;
  const int *starts, *lengths;
};

struct Span {
  int level, first, last;  // pages first … last - 1
  const int* table;
  std::vector<int> rows;
};

struct Item {
  int run, span;             // span: -1 for rows of one run against its own pages
  int row, position, count;  // of a span: index of the first row in it, nothing, rows
};

struct Schedule {
  std::vector<Span> spans;
  std::vector<int> skipped;               // pages of each run that spans have dealt with
  std::vector<std::vector<Item>> levels;  // the last: runs by themselves
  bool singles = true;                    // every run is one row

  Schedule(const Runs& runs, int together, bool share) : skipped(runs.count, 0) {
    std::vector<int> begins(runs.count);
    for (int run = 0, row = 0; run < runs.count; row += runs.lengths[run++]) {
      begins[run] = row;
      singles &= runs.lengths[run] == 1;
    }
    if (share && runs.count > 1) find_spans(runs, begins);
    for (const Span& span : spans)
      if (span.level >= (int)levels.size()) levels.resize(span.level + 1);
    for (int at = 0; at < (int)spans.size(); at++)
      for (int row = 0, all = (int)spans[at].rows.size(); row < all; row += together)
        levels[spans[at].level].push_back({-1, at, row, 0, std::min(together, all - row)});
    levels.emplace_back();
    for (int run = 0; run < runs.count; run++)
      for (int at = 0; at < runs.lengths[run]; at += together)
        levels.back().push_back(
            {run, -1, begins[run] + at, runs.starts[run] + at, std::min(together, runs.lengths[run] - at)});
  }

 private:
  void find_spans(const Runs& runs, const std::vector<int>& begins) {
    std::map<int, std::vector<int>> alike;
    for (int run = 0; run < runs.count; run++)
      if (runs.starts[run] >= PAGE) alike[runs.tables[run][0]].push_back(run);
    for (const auto& each : alike) nest(runs, begins, each.second, 0, 0);
  }

  // Only pages that lie before all rows of all members count.
  void nest(const Runs& runs, const std::vector<int>& begins, const std::vector<int>& members, int first, int level) {
    if (members.size() < 2) return;
    int limit = runs.starts[members[0]] / PAGE, last = first;
    for (int member : members) limit = std::min(limit, runs.starts[member] / PAGE);
    const int* table = runs.tables[members[0]];
    const auto same = [&](int page) {
      for (int member : members)
        if (runs.tables[member][page] != table[page]) return false;
      return true;
    };
    while (last < limit && same(last)) last++;
    if ((last - first) * (int)(members.size() - 1) >= WORTH_SHARING) {
      spans.push_back({level++, first, last, table, {}});
      for (int member : members) {
        skipped[member] = last;
        for (int i = 0; i < runs.lengths[member]; i++) spans.back().rows.push_back(begins[member] + i);
      }
      first = last;
    }
    std::map<int, std::vector<int>> alike;
    for (int member : members)
      if (runs.starts[member] / PAGE > last) alike[runs.tables[member][last]].push_back(member);
    for (const auto& each : alike)
      if (each.second.size() < members.size()) nest(runs, begins, each.second, first, level);
  }
};
