// Rows of different widths: blocks of one bucket run through the kernels of their width, and what
// they produce goes to the node's own row. Blocks depend on the buckets alone.
#include "run/bucketed.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/pool.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr int64_t kBlockRows = 120;  // a multiple of the rows that the gemm kernels unpack together

}  // namespace

void each_block(const Buckets& buckets, int64_t most, int64_t work, int threads,
                const std::function<void(const RowBlock&)>& f) {
  std::vector<RowBlock> blocks;
  int64_t first = 0, offset = 0;
  for (int bits = 1; bits <= 8; ++bits) {
    const int64_t stride = packed_row_bytes(buckets.num_cols, bits);
    for (int64_t left = buckets.counts[bits - 1]; left > 0;) {
      const int64_t rows = std::min(left, most);
      blocks.push_back({bits, first, rows, offset});
      first += rows;
      offset += rows * stride;
      left -= rows;
    }
  }
  const int used = buckets.rows * std::max<int64_t>(1, work) < kTaskWork ? 1 : threads;
  parallel_for(static_cast<int64_t>(blocks.size()), used,
               [&](int64_t t) { f(blocks[static_cast<size_t>(t)]); });
}

bool run_quantize_mixed(const FusedOutput& o, const float* x, int64_t rows, int64_t num_cols,
                        bool look, int threads) {
  if (num_cols == 0) return true;
  const Kernels& k = kernels();
  prefer_huge_pages(o.packed, static_cast<size_t>(o.bytes));
  std::atomic<bool> finite{true};
  split_rows(rows, num_cols, threads, [&](int64_t begin, int64_t end) {
    bool here = true;
    k.quantize_mixed(o, x, num_cols, begin, end, look ? &here : nullptr);
    if (!here) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

void run_unpack_bucketed(const uint8_t* packed, const uint8_t* shift, uint8_t* codes,
                         const Buckets& buckets, int threads) {
  if (buckets.num_cols == 0) return;
  const Kernels& k = kernels();
  each_block(buckets, kBlockRows, buckets.num_cols, threads, [&](const RowBlock& block) {
    k.unpack({packed + block.offset, codes, buckets.num_cols, block.bits,
              buckets.order + block.first, shift},
             0, block.rows);
  });
}

void run_nearest_group(const float* extent, int64_t rows, const float* limits, int64_t groups,
                       int32_t* group, int threads) {
  split_rows(rows, 16, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float f = extent[i];
      int64_t at = std::lower_bound(limits, limits + groups, f) - limits;
      if (at == groups || (at > 0 && f - limits[at - 1] <= limits[at] - f)) --at;
      group[i] = static_cast<int32_t>(at);
    }
  });
}

}  // namespace nodebits
