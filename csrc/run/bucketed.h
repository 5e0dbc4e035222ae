// Rows of different widths, grouped by width: bucket b (1 to 8 bits) holds counts[b - 1] rows of
// packed_row_bytes(num_cols, b) bytes each, buckets one after another, no padding between them.
// Row k of that sequence belongs to node order[k].
#pragma once

#include <cstdint>
#include <functional>

#include "contract/kernels.h"

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

// Rows of one width that follow one another.
struct RowBlock {
  int bits;
  int64_t first;  // in the sequence, hence in `order`
  int64_t rows;
  int64_t offset;  // byte of the first row
};

// Calls f(block) for blocks of at most `most` rows that cover all; they depend on the buckets
// alone. `work` is that of a row, as in split_rows: little of it is not worth waking other threads.
void each_block(const Buckets& buckets, int64_t most, int64_t work, int threads,
                const std::function<void(const RowBlock&)>& f);

// `x` [rows, num_cols] to what `o` says; returns whether all values are finite, where asked to.
bool run_quantize_mixed(const FusedOutput& o, const float* x, int64_t rows, int64_t num_cols,
                        bool look, int threads);
// Codes in node order, each shifted left by shift[node] (null: by 0).
void run_unpack_bucketed(const uint8_t* packed, const uint8_t* shift, uint8_t* codes,
                         const Buckets& buckets, int threads);
// group[i]: the position in `limits` (ascending) of the value nearest to extent[i]; of two as near,
// the smaller (the Nearest Neighbour Strategy of A2Q, on groups sorted once).
void run_nearest_group(const float* extent, int64_t rows, const float* limits, int64_t groups,
                       int32_t* group, int threads);

}  // namespace nodebits
