// Products of raw float features, each of whose rows brings its own scale. Rows are checked, made
// to codes and multiplied a few at a time, while they are in the cache: no packed matrix of them
// ever exists.
#pragma once

#include <cstdint>

#include "run/fused.h"

namespace nodebits {

// A weight as the table of sums over the columns of a row that are not zero: the rows of its
// transpose, bytes c + 2^(bits - 1) of its fields c.
struct SparseWeight {
  const uint8_t* table;  // [depth, num_out]; null: there is none
  bool doubled;          // fields stand for 2c + 1
  int bits;
};

void make_sparse_table(const WeightArgs& weight, uint8_t* table);

// Share of values other than zero, in some of the rows: as nodebits/ops/features.py counts it.
double sample_density(const float* x, int64_t rows, int64_t cols);

// One product: `product.args.x` is not read, the scales go to `scan.scale` (its other results are
// not used). Where `sparse` has a table the codes other than zero alone are multiplied, in blocks
// of rows with few of them; the integers are those of the dense product.
ScanFlags run_fused_gemm_features(const FusedProduct& product, const SparseWeight& sparse,
                                  const ScanArgs& scan, int64_t rows, const FusedArgs& a,
                                  int threads);

}  // namespace nodebits
