// Counting sort and index checks.
#include "run/csr.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "run/memory.h"
#include "run/pool.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kLeastEdgesPerPart = 1 << 14;
constexpr int64_t kMostBuckets = 512;
constexpr int64_t kCountedRows = 1 << 17;  // whose counters the cache next to a core holds

// One counter per row and part of the edge list, which knows from them where it writes.
void sort_counted(const int64_t* row, const int64_t* col, int64_t num_edges, int64_t num_rows,
                  int64_t* indptr, int32_t* indices, int64_t* perm, int64_t parts, int threads) {
  const Buffer memory(static_cast<size_t>(parts * num_rows) * sizeof(uint32_t));
  uint32_t* counters = reinterpret_cast<uint32_t*>(memory.memory);
  const auto begin = [&](int64_t p) {
    return static_cast<int64_t>(static_cast<__int128>(num_edges) * p / parts);
  };
  parallel_for(parts, threads, [&](int64_t p) {
    uint32_t* count = counters + p * num_rows;
    std::fill(count, count + num_rows, 0);
    for (int64_t e = begin(p); e < begin(p + 1); ++e) ++count[row[e]];
  });
  uint32_t at = 0;
  for (int64_t r = 0; r < num_rows; ++r) {
    indptr[r] = at;
    for (int64_t p = 0; p < parts; ++p) {
      const uint32_t count = counters[p * num_rows + r];
      counters[p * num_rows + r] = at;
      at += count;
    }
  }
  indptr[num_rows] = num_edges;
  parallel_for(parts, threads, [&](int64_t p) {
    uint32_t* place = counters + p * num_rows;
    const int64_t end = begin(p + 1);
    if (perm == nullptr) {
      for (int64_t e = begin(p); e < end; ++e)
        indices[place[row[e]]++] = static_cast<int32_t>(col[e]);
      return;
    }
    for (int64_t e = begin(p); e < end; ++e) {
      const uint32_t to = place[row[e]]++;
      indices[to] = static_cast<int32_t>(col[e]);
      perm[to] = e;
    }
  });
}

}  // namespace

template <class T>
int64_t first_outside(const T* values, int64_t n, int64_t limit, int threads) {
  constexpr int64_t kBlock = 1 << 16;
  std::atomic<int64_t> found{n};
  const uint64_t bound = static_cast<uint64_t>(limit);
  parallel_for((n + kBlock - 1) / kBlock, threads, [&](int64_t block) {
    const int64_t from = block * kBlock;
    const int64_t to = std::min(n, from + kBlock);
    // Negative where a value is, or the way from it to the last good one: no comparison, which not
    // every level has for 64 bits, and no exit from the loop.
    int64_t bad = 0;
    for (int64_t i = from; i < to; ++i) {
      const int64_t v = static_cast<int64_t>(values[i]);
      bad |= v | static_cast<int64_t>(bound - 1 - static_cast<uint64_t>(v));
    }
    if (bad >= 0) return;
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

// Of many rows in two steps, so that no step writes to more places than the cache has room for:
// edges to buckets of consecutive rows, in their order, then every bucket on its own. Parts of the
// edge list know where in each bucket they write; the result is the same for any number of parts.
void coo_to_csr(const int64_t* row, const int64_t* col, int64_t num_edges, int64_t num_rows,
                int64_t* indptr, int32_t* indices, int64_t* perm, int threads) {
  prefer_huge_pages(indices, static_cast<size_t>(num_edges) * sizeof(int32_t));
  if (perm != nullptr) prefer_huge_pages(perm, static_cast<size_t>(num_edges) * sizeof(int64_t));
  int shift = 0;
  while (num_rows >> shift >= kMostBuckets) ++shift;
  const int64_t buckets = (num_rows >> shift) + 1;
  const int64_t low = (int64_t{1} << shift) - 1;
  const int64_t parts =
      std::max<int64_t>(1, std::min<int64_t>(threads, num_edges / kLeastEdgesPerPart));
  if (num_rows <= kCountedRows && num_edges <= UINT32_MAX)
    return sort_counted(row, col, num_edges, num_rows, indptr, indices, perm, parts, threads);
  const auto begin = [&](int64_t p) {
    return static_cast<int64_t>(static_cast<__int128>(num_edges) * p / parts);
  };
  std::vector<int64_t> next(static_cast<size_t>(parts * buckets), 0);
  std::atomic<bool> in_order{true};
  parallel_for(parts, threads, [&](int64_t p) {
    int64_t* count = next.data() + p * buckets;
    int64_t before = begin(p) > 0 ? row[begin(p) - 1] : 0;
    bool ascending = true;
    for (int64_t e = begin(p); e < begin(p + 1); ++e) {
      ++count[row[e] >> shift];
      ascending &= before <= row[e];
      before = row[e];
    }
    if (!ascending) in_order = false;
  });
  if (in_order) {
    parallel_for(parts, threads, [&](int64_t p) {
      int64_t open = begin(p) > 0 ? row[begin(p) - 1] + 1 : 0;  // first row without a beginning
      for (int64_t e = begin(p); e < begin(p + 1); ++e) {
        for (; open <= row[e]; ++open) indptr[open] = e;
        indices[e] = static_cast<int32_t>(col[e]);
        if (perm != nullptr) perm[e] = e;
      }
    });
    for (int64_t i = num_edges > 0 ? row[num_edges - 1] + 1 : 0; i <= num_rows; ++i)
      indptr[i] = num_edges;
    return;
  }
  std::vector<int64_t> start(static_cast<size_t>(buckets + 1), 0);
  int64_t at = 0;
  for (int64_t b = 0; b < buckets; ++b) {
    start[static_cast<size_t>(b)] = at;
    for (int64_t p = 0; p < parts; ++p) {
      int64_t& place = next[static_cast<size_t>(p * buckets + b)];
      const int64_t count = place;
      place = at;
      at += count;
    }
  }
  start[static_cast<size_t>(buckets)] = at;
  const Buffer memory(static_cast<size_t>(num_edges) * sizeof(uint32_t));
  uint32_t* in_bucket = reinterpret_cast<uint32_t*>(memory.memory);  // row of an edge
  parallel_for(parts, threads, [&](int64_t p) {
    int64_t* place = next.data() + p * buckets;
    for (int64_t e = begin(p); e < begin(p + 1); ++e) {
      const int64_t to = place[row[e] >> shift]++;
      in_bucket[to] = static_cast<uint32_t>(row[e] & low);
      indices[to] = static_cast<int32_t>(col[e]);
      if (perm != nullptr) perm[to] = e;
    }
  });
  indptr[num_rows] = num_edges;
  parallel_for(buckets, threads, [&](int64_t b) {
    const int64_t first = b << shift;
    const int64_t rows = std::min(num_rows, first + low + 1) - first;
    const int64_t from = start[static_cast<size_t>(b)], to = start[static_cast<size_t>(b + 1)];
    if (rows <= 0) return;
    std::vector<int64_t> place(static_cast<size_t>(rows), 0);
    for (int64_t e = from; e < to; ++e) ++place[in_bucket[e]];
    int64_t here = from;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t count = place[static_cast<size_t>(r)];
      indptr[first + r] = here;
      place[static_cast<size_t>(r)] = here;
      here += count;
    }
    const std::vector<int32_t> cols(indices + from, indices + to);
    std::vector<int64_t> edges;
    if (perm != nullptr) edges.assign(perm + from, perm + to);
    for (int64_t e = from; e < to; ++e) {
      const int64_t where = place[in_bucket[e]]++;
      indices[where] = cols[static_cast<size_t>(e - from)];
      if (perm != nullptr) perm[where] = edges[static_cast<size_t>(e - from)];
    }
  });
}

}  // namespace nodebits
