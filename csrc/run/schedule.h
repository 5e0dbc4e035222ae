// Splitting of work. Boundaries depend on the shapes and the thread count only through how many
// tasks there are; every output element is computed by one task alone, so the split never shows in
// a result.
#pragma once

#include <algorithm>
#include <cstdint>

#include "run/pool.h"

namespace nodebits {

// Elementary steps below which a task is not worth a wake-up, or an entry in a thread's cache.
constexpr int64_t kTaskWork = 1 << 15;
constexpr int64_t kAwakeTaskWork = 1 << 13;
constexpr int64_t kTasksPerThread = 8;  // slack for uneven tasks

inline int64_t task_count(int64_t work, int64_t rows, int threads) {
  if (threads <= 1) return 1;
  const int64_t least = pool_is_awake() ? kAwakeTaskWork : kTaskWork;
  return std::max<int64_t>(1, std::min({work / least, kTasksPerThread * threads, rows}));
}

// Calls f(begin, end) for equal row ranges.
template <class F>
void split_rows(int64_t rows, int64_t work_per_row, int threads, const F& f) {
  if (rows == 0) return;
  const int64_t tasks = task_count(rows * std::max<int64_t>(1, work_per_row), rows, threads);
  parallel_for(tasks, threads, [&](int64_t t) {
    const int64_t begin = rows / tasks * t + std::min(t, rows % tasks);
    f(begin, begin + rows / tasks + (t < rows % tasks ? 1 : 0));
  });
}

// First row of task t of `tasks` of about equal numbers of edges (a row counts as one more edge).
inline int64_t edge_boundary(const int64_t* indptr, int64_t rows, int64_t t, int64_t tasks) {
  if (t >= tasks) return rows;
  const int64_t total = indptr[rows] - indptr[0] + rows;
  const int64_t target = indptr[0] + static_cast<int64_t>(static_cast<__int128>(total) * t / tasks);
  int64_t low = 0, high = rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (indptr[middle] + middle < target) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Calls f(begin, end) for row ranges of about equal numbers of edges.
template <class F>
void split_edges(const int64_t* indptr, int64_t rows, int64_t work_per_edge, int threads,
                 const F& f) {
  if (rows == 0) return;
  const int64_t total = indptr[rows] + rows;
  const int64_t tasks = task_count(total * std::max<int64_t>(1, work_per_edge), rows, threads);
  parallel_for(tasks, threads, [&](int64_t t) {
    const int64_t begin = edge_boundary(indptr, rows, t, tasks);
    const int64_t end = edge_boundary(indptr, rows, t + 1, tasks);
    if (begin < end) f(begin, end);
  });
}

}  // namespace nodebits
