// Fused operators: integer products whose tiles go on to their epilogue, activation, quantizers and
// packing on the thread that computed them, so that no matrix of sums or floats is ever whole.
#pragma once

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
                    const FusedArgs& a, int threads);

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
