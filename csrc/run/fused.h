// Fused operators: integer products whose tiles go on to their epilogue, activation, quantizers and
// packing on the thread that computed them, so that no matrix of sums or floats is ever whole.
#pragma once

#include <functional>
#include <vector>

#include "contract/kernels.h"
#include "run/bucketed.h"
#include "run/edge_blocks.h"

namespace nodebits {

constexpr int64_t kProductRows = 60;  // a multiple of every tile height of the products

// Tells the system what the memory of the results is for.
void prepare_outputs(const FusedArgs& a, int64_t rows);

// `blocks` may be empty.
void run_fused_spmm(const SpmmArgs& sum, const EdgeBlocks& blocks, int64_t rows, int64_t table_rows,
                    FusedArgs a, int threads);

// Takes float rows [begin, end), all their columns, on the thread that made them.
using RowsTask = std::function<void(int64_t begin, int64_t end, const float* rows)>;

// Whether run_fused_rows can go the way of run_fused_spmm: blocks of edges keep the sums of some
// columns of many rows.
inline bool makes_whole_rows(const EdgeBlocks& blocks) { return blocks.block_rows == 0; }

// As run_fused_spmm without blocks and outputs. Float rows go to `take`, some at a time, and
// nowhere else.
void run_fused_rows(const SpmmArgs& sum, int64_t rows, int64_t table_rows, FusedArgs a, int threads,
                    const RowsTask& take);

// Whether neighbour sums whose codes are lines are worth a way of their own: few edges in a row.
bool pays_sum_lines(const Kernels& k, const SpmmArgs& sum, const EdgeBlocks& blocks, int64_t rows,
                    bool own);

// As run_fused_spmm with one output. `lines` says what is summed and how it becomes codes; the rest
// is filled in.
void run_sum_lines(SumLineArgs lines, int64_t rows, int64_t table_rows, const FusedArgs& a,
                   int threads);

// The largest magnitude of a product's sums.
inline int64_t largest_sum(const WeightArgs& w, int x_bits) {
  const int64_t weight = w.midrise ? (1 << w.bits) - 1 : 1 << (w.bits - 1);
  return w.depth * weight * ((1 << x_bits) - 1);
}

struct FusedProduct {
  GemmArgs args;
  WeightArgs weight;
};

// The products have the same rows and columns, and one term each, in the same order.
void run_fused_gemm(const std::vector<FusedProduct>& products, int64_t rows, const FusedArgs& a,
                    int threads);

// One product, whose rows have several widths: `product.args.x` is the whole sequence of buckets,
// x_bits is not read. Everything in `a` is in node order.
void run_fused_gemm_bucketed(const FusedProduct& product, const Buckets& buckets,
                             const FusedArgs& a, int threads);

}  // namespace nodebits
