// Rows of different widths: blocks of one bucket run through the kernels of their width, and what
// they produce goes to the node's own row. Blocks depend on the buckets alone.
#include "bucketed.h"

#include <algorithm>
#include <vector>

#include "isa.h"
#include "pool.h"
#include "schedule.h"
#include "tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kBlockRows = 120;  // a multiple of the rows that the gemm kernels unpack together

struct Block {
  int bits;
  int64_t first;  // in the sequence, hence in `order`
  int64_t rows;
  int64_t offset;  // byte of the first row
};

std::vector<Block> blocks_of(const Buckets& buckets) {
  std::vector<Block> blocks;
  int64_t first = 0, offset = 0;
  for (int bits = 1; bits <= 8; ++bits) {
    const int64_t stride = packed_row_bytes(buckets.num_cols, bits);
    for (int64_t left = buckets.counts[bits - 1]; left > 0;) {
      const int64_t rows = std::min(left, kBlockRows);
      blocks.push_back({bits, first, rows, offset});
      first += rows;
      offset += rows * stride;
      left -= rows;
    }
  }
  return blocks;
}

// Calls f(block) for every block; few rows are not worth waking other threads.
template <class F>
void each_block(const Buckets& buckets, int threads, const F& f) {
  const std::vector<Block> blocks = blocks_of(buckets);
  const int64_t count = static_cast<int64_t>(blocks.size());
  const int used = buckets.rows * std::max<int64_t>(1, buckets.num_cols) < (1 << 15) ? 1 : threads;
  parallel_for(count, used, [&](int64_t t) { f(blocks[static_cast<size_t>(t)]); });
}

}  // namespace

void run_quantize_bucketed(const QuantizeArgs& q, const Buckets& buckets, int threads) {
  if (buckets.num_cols == 0) return;
  const Kernels& k = kernels();
  // One zero point per width becomes one per column, where the kernel wants it so.
  std::vector<float> zero_points;
  if (q.axis == 1) {
    zero_points.resize(static_cast<size_t>(8 * buckets.num_cols));
    for (int64_t b = 0; b < 8; ++b)
      std::fill_n(zero_points.begin() + b * buckets.num_cols, buckets.num_cols, q.zero_point[b]);
  }
  each_block(buckets, threads, [&](const Block& block) {
    QuantizeArgs rows = q;
    rows.bits = block.bits;
    rows.packed += block.offset;
    rows.order = buckets.order + block.first;
    if (q.axis == 1) {
      rows.zero_point = zero_points.data() + (block.bits - 1) * buckets.num_cols;
    } else if (q.axis != 0) {
      rows.zero_point += block.bits - 1;
    }
    k.quantize(rows, 0, block.rows);
  });
}

void run_unpack_bucketed(const uint8_t* packed, const uint8_t* shift, uint8_t* codes,
                         const Buckets& buckets, int threads) {
  if (buckets.num_cols == 0) return;
  const Kernels& k = kernels();
  each_block(buckets, threads, [&](const Block& block) {
    k.unpack({packed + block.offset, codes, buckets.num_cols, block.bits,
              buckets.order + block.first, shift},
             0, block.rows);
  });
}

void run_gemm_bucketed(const GemmArgs& a, const WeightArgs& w, int32_t* out, const Buckets& buckets,
                       int threads) {
  if (buckets.rows == 0 || a.num_out == 0) return;
  if (a.depth == 0) {
    std::fill(out, out + buckets.rows * a.num_out, 0);
    return;
  }
  const Kernels& k = kernels();
  const Buffer panel(k.panel_bytes(w));
  k.make_panel(w, panel.memory);
  each_block(buckets, threads, [&](const Block& block) {
    const Buffer scratch(static_cast<size_t>(block.rows * a.num_out) * sizeof(int32_t));
    int32_t* products = reinterpret_cast<int32_t*>(scratch.memory);
    GemmArgs one = a;
    one.x += block.offset;
    one.x_bits = block.bits;
    one.panel = panel.memory;
    k.gemm(one, {0, block.rows, 0, a.num_out, products, a.num_out});
    for (int64_t r = 0; r < block.rows; ++r) {
      const int64_t node = buckets.order[block.first + r];
      std::copy_n(products + r * a.num_out, a.num_out, out + node * a.num_out);
    }
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
