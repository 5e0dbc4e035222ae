// Neighbour sums with one u8 weight per edge and head, for rows of bytes; narrower rows were
// unpacked before. A product of two bytes fits 16 bits, so the multiplication is a 16-bit one.
#pragma once

#include "contract/products.h"

namespace nodebits {
namespace {

// Width in which rows of `bits` are multiplied.
template <class I>
constexpr uint8_t weighted_bits(I, int bits) {
  return bits == 0 ? 0 : 8;
}

template <class I>
void spmm_weighted_tile(I, const SpmmArgs& a, const Tile& t) {
  const int64_t width = a.num_cols / a.heads;
  const int64_t columns = t.col_end - t.col_begin;
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    int32_t* __restrict__ out = t.out + (row - t.row_begin) * t.stride;
    __builtin_memset(out, 0, static_cast<size_t>(columns) * 4);
    for (int64_t e = a.indptr[row]; e < a.indptr[row + 1]; ++e) {
      const int64_t ahead = e + 16 < a.num_edges ? e + 16 : a.num_edges - 1;
      const uint8_t* next =
          a.packed + static_cast<int64_t>(a.indices[ahead]) * a.num_cols + t.col_begin;
      for (int64_t k = 0; k < columns; k += 64) __builtin_prefetch(next + k);
      const uint8_t* __restrict__ x =
          a.packed + static_cast<int64_t>(a.indices[e]) * a.num_cols + t.col_begin;
      for (int64_t c = 0; c < columns;) {
        const int64_t head = (t.col_begin + c) / width;
        const int64_t head_end = (head + 1) * width - t.col_begin;
        const int64_t stop = head_end < columns ? head_end : columns;
        const uint16_t w = a.weight[e * a.heads + head];
        for (; c < stop; ++c) out[c] += static_cast<uint16_t>(w * x[c]);
      }
    }
  }
}

}  // namespace
}  // namespace nodebits
