// Counting sort and index checks.
#include "csr.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "pool.h"

namespace nodebits {

template <class T>
int64_t first_outside(const T* values, int64_t n, int64_t limit, int threads) {
  constexpr int64_t kBlock = 1 << 16;
  std::atomic<int64_t> found{n};
  const uint64_t bound = static_cast<uint64_t>(limit);
  parallel_for((n + kBlock - 1) / kBlock, threads, [&](int64_t block) {
    const int64_t from = block * kBlock;
    const int64_t to = std::min(n, from + kBlock);
    // A negative value is a huge unsigned one: one comparison checks both ends, and the loop has no
    // exit.
    uint64_t bad = 0;
    for (int64_t i = from; i < to; ++i) {
      bad |= static_cast<uint64_t>(static_cast<uint64_t>(static_cast<int64_t>(values[i])) >= bound);
    }
    if (bad == 0) return;
    for (int64_t i = from; i < to; ++i) {
      if (static_cast<uint64_t>(static_cast<int64_t>(values[i])) >= bound) {
        int64_t seen = found.load();
        while (i < seen && !found.compare_exchange_weak(seen, i)) {
        }
        return;
      }
    }
  });
  return found.load() == n ? -1 : found.load();
}

template int64_t first_outside<int32_t>(const int32_t*, int64_t, int64_t, int);
template int64_t first_outside<int64_t>(const int64_t*, int64_t, int64_t, int);

int64_t first_descent(const int64_t* indptr, int64_t num_rows) {
  bool bad = false;
  for (int64_t i = 0; i < num_rows; ++i) bad |= indptr[i] > indptr[i + 1];
  if (!bad) return -1;
  for (int64_t i = 0; i < num_rows; ++i) {
    if (indptr[i] > indptr[i + 1]) return i;
  }
  return -1;
}

void coo_to_csr(const int64_t* row, const int64_t* col, int64_t num_edges, int64_t num_rows,
                int64_t* indptr, int32_t* indices, int64_t* perm) {
  std::fill(indptr, indptr + num_rows + 1, 0);
  for (int64_t e = 0; e < num_edges; ++e) ++indptr[row[e] + 1];
  for (int64_t i = 0; i < num_rows; ++i) indptr[i + 1] += indptr[i];
  std::vector<int64_t> next(indptr, indptr + num_rows);
  for (int64_t e = 0; e < num_edges; ++e) {
    const int64_t at = next[static_cast<size_t>(row[e])]++;
    indices[at] = static_cast<int32_t>(col[e]);
    perm[at] = e;
  }
}

}  // namespace nodebits
