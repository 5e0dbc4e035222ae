// Rows of different widths, grouped by width: bucket b (1 to 8 bits) holds counts[b - 1] rows of
// packed_row_bytes(num_cols, b) bytes each, buckets one after another, no padding between them.
// Row k of that sequence belongs to node order[k].
#pragma once

#include <cstdint>

#include "common.h"

namespace nodebits {

struct Buckets {
  const int32_t* order;   // [rows], a permutation
  const int64_t* counts;  // [8]
  int64_t rows;
  int64_t num_cols;

  int64_t bytes() const {
    int64_t total = 0;
    for (int b = 1; b <= 8; ++b) total += counts[b - 1] * packed_row_bytes(num_cols, b);
    return total;
  }
};

// `q.x`, and with axis 0 `q.scale` and `q.zero_point`, are in node order; with axis -1 or 1
// `q.zero_point` holds one value per width, [8]. `q.packed` is the whole sequence; `q.bits` is
// not read.
void run_quantize_bucketed(const QuantizeArgs& q, const Buckets& buckets, int threads);
// Codes in node order, each shifted left by shift[node] (null: by 0).
void run_unpack_bucketed(const uint8_t* packed, const uint8_t* shift, uint8_t* codes,
                         const Buckets& buckets, int threads);
// `a.x` is the whole sequence; `out` [rows, a.num_out] is in node order. `a.panel` and `a.x_bits`
// are set here.
void run_gemm_bucketed(const GemmArgs& a, const WeightArgs& w, int32_t* out, const Buckets& buckets,
                       int threads);

// group[i]: the position in `limits` (ascending) of the value nearest to extent[i]; of two as near,
// the smaller (the Nearest Neighbour Strategy of A2Q, on groups sorted once).
void run_nearest_group(const float* extent, int64_t rows, const float* limits, int64_t groups,
                       int32_t* group, int threads);

}  // namespace nodebits
