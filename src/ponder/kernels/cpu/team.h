// The threads of a model. They stay between its steps, awake for a little while: OpenMP keeps a team for each thread
// that ever computed, and lets all of them sleep at once where they are more than the cores. Waking them costs as much as
// a third of a small model's step.
#pragma once
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <functional>
#include <thread>
#include <vector>

constexpr int SPINS = 1500;      // within a step: some 20 to 60 microseconds
constexpr int PATIENCE = 10000;  // between steps

// A count whose change threads wait for. They spin, then sleep: where cores are short, somebody else needs them to get
// there.
struct Signal {
  std::atomic<uint32_t> count{0};  // may go round
  std::atomic<int> asleep{0};

  uint32_t now() const { return count.load(std::memory_order_acquire); }
  void change() {
    count.fetch_add(1);
    if (asleep.load()) syscall(SYS_futex, &count, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }
  void wait(uint32_t seen, int spins) {
    for (int i = 1; i <= spins; i++) {
      if (now() != seen) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
      if (i > SPINS && i % 64 == 0) sched_yield();
    }
    asleep.fetch_add(1);
    while (count.load() == seen) syscall(SYS_futex, &count, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    asleep.fetch_sub(1);
  }
};

struct Barrier {
  std::atomic<int> waiting{0};
  Signal round;

  void wait(int threads) {
    if (threads == 1) return;
    const uint32_t mine = round.now();
    if (waiting.fetch_add(1, std::memory_order_acq_rel) < threads - 1) return round.wait(mine, SPINS);
    waiting.store(0, std::memory_order_relaxed);
    round.change();
  }
};

class Team {
  std::vector<std::thread> others;
  std::function<void(int)> work;  // empty: go home
  pid_t process = getpid();
  Signal begin;
  Barrier end;

  void serve(int thread, int threads, uint32_t seen) {
    for (;; seen++) {
      begin.wait(seen, PATIENCE);
      if (!work) return;
      work(thread);
      end.wait(threads);
    }
  }

  void dismiss() {
    work = nullptr;
    begin.change();
    const bool here = process == getpid();  // a fork has none of its parent's threads
    for (std::thread& each : others) here ? each.join() : each.detach();
    others.clear();
    process = getpid();
  }

 public:
  ~Team() { dismiss(); }

  // work(0), on this thread, … work(threads - 1), all at once. Raises std::system_error where there is no such thread to
  // be had, and then nothing has run.
  void run(int threads, std::function<void(int)> task) {
    if ((int)others.size() != threads - 1 || process != getpid()) {
      dismiss();
      const uint32_t seen = begin.now();
      for (int i = 1; i < threads; i++) others.emplace_back([=] { serve(i, threads, seen); });
    }
    work = std::move(task);
    begin.change();
    work(0);
    end.wait(threads);
  }
};
