// Worker threads that sleep between jobs. torch brings its own OpenMP runtime; a second one in the
// process would spin against it, so the kernels have this pool instead.
#pragma once

#include <cstdint>
#include <functional>

namespace nodebits {

// Runs task(0) .. task(tasks - 1), each once, on at most `threads` threads including the caller's.
// Which thread runs which task varies; tasks write disjoint outputs, so results do not. Runs
// everything on the calling thread when another thread is inside a job. Tasks must not throw.
void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t)>& task);

}  // namespace nodebits
