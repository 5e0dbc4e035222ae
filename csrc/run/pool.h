// Worker threads that sleep between jobs. torch brings its own OpenMP runtime; a second one in the
// process would spin against it, so the kernels have this pool instead.
#pragma once

#include <cstdint>
#include <functional>

namespace nodebits {

// Runs task(0) .. task(tasks - 1), each once, on at most `threads` threads including the caller's.
// Which thread runs which task varies; tasks write disjoint outputs, so results do not. Runs
// everything on the calling thread when another thread is inside a job. The first exception of a
// task is thrown here once the tasks under way have ended; tasks that did not begin are left out.
void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t)>& task);

// While one exists, threads of the pool look out for the next job instead of going to sleep after
// each: to wake one takes as long as many of the jobs of a small graph.
class KeepAwake {
 public:
  KeepAwake();
  ~KeepAwake();
  KeepAwake(const KeepAwake&) = delete;
  KeepAwake& operator=(const KeepAwake&) = delete;
};

bool pool_is_awake();

}  // namespace nodebits
