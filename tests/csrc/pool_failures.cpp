// Tasks of the pool that throw, on the caller's thread and on workers: the caller gets the
// exception, tasks that began have ended by then, and the next job is whole. Prints the threads
// that failed.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <new>
#include <thread>
#include <vector>

#include "run/pool.h"

namespace {

constexpr int kTasks = 64;
constexpr int kThreads = 4;

// Whether this round's failure, of the kind asked for, reached the caller.
bool failure_arrives(bool on_worker) {
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> inside{0};
  std::atomic<bool> thrown{false};
  bool caught = false;
  try {
    nodebits::parallel_for(kTasks, kThreads, [&](int64_t) {
      inside.fetch_add(1);
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      const bool mine = (std::this_thread::get_id() != caller) == on_worker;
      inside.fetch_sub(1);
      if (mine) {
        thrown.store(true);
        throw std::bad_alloc();
      }
    });
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  return thrown.load() && caught && inside.load() == 0;
}

bool next_job_is_whole() {
  std::vector<int> done(kTasks, 0);
  nodebits::parallel_for(kTasks, kThreads, [&](int64_t i) { done[i] += 1; });
  for (int count : done)
    if (count != 1) return false;
  return true;
}

}  // namespace

int main() {
  int arrived[2] = {0, 0};
  for (int round = 0; round < 40; ++round) {
    for (int worker = 0; worker < 2; ++worker) {
      arrived[worker] += failure_arrives(worker == 1);
      if (!next_job_is_whole()) return 1;
    }
  }
  std::printf("%d on the caller's thread, %d on workers\n", arrived[0], arrived[1]);
  return arrived[0] > 0 && arrived[1] > 0 ? 0 : 2;
}
