// u8 x s8 products as dot products of 16-bit words, which every vector unit has (pmaddwd, smlal).
// Weight panel: [outputs][depth padded to 8] int16.
#pragma once

#include "contract/products.h"
#include "families/gemm_weight.h"
#include "families/pack.h"

namespace nodebits {
namespace {

template <class I>
inline int64_t padded_depth(I, int64_t depth) {
  return (depth + 7) / 8 * 8;
}

template <class I>
size_t panel_bytes(I isa, const WeightArgs& w) {
  return static_cast<size_t>(padded_depth(isa, w.depth)) * static_cast<size_t>(w.num_out) * 2;
}

template <class I>
void make_panel(I isa, const WeightArgs& w, void* memory) {
  int16_t* panel = static_cast<int16_t*>(memory);
  __builtin_memset(panel, 0, panel_bytes(isa, w));
  for (int64_t m = 0; m < w.num_out; ++m) {
    int16_t* to = panel + m * padded_depth(isa, w.depth);
    decode_weight_row(isa, w, m,
                      [&](int64_t k, int value) { to[k] = static_cast<int16_t>(value); });
  }
}

template <class I>
void gemm_tile(I isa, const GemmArgs& a, const Tile& t) {
  constexpr int64_t kGemmDepth = 1024;
  constexpr int64_t kGemmRows = 4;
  uint8_t codes[kGemmDepth];
  alignas(64) int16_t words[kGemmRows][kGemmDepth];
  const int64_t padded = padded_depth(isa, a.depth);
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits);
  for (int64_t i = t.row_begin; i < t.row_end; i += kGemmRows) {
    const int64_t rows = t.row_end - i < kGemmRows ? t.row_end - i : kGemmRows;
    int32_t* out = t.out + (i - t.row_begin) * t.stride;
    for (int64_t k0 = 0; k0 < a.depth; k0 += kGemmDepth) {
      const int64_t n = a.depth - k0 < kGemmDepth ? a.depth - k0 : kGemmDepth;
      const int64_t words_used = padded_depth(isa, n);
      for (int64_t r = 0; r < rows; ++r) {
        with_bits(a.x_bits, [&]<int B>() {
          unpack_codes<B>(isa, a.x + (i + r) * stride + k0 / 8 * B, n, codes);
        });
        for (int64_t k = 0; k < n; ++k) words[r][k] = codes[k];
        for (int64_t k = n; k < words_used; ++k) words[r][k] = 0;
      }
      for (int64_t m = t.col_begin; m < t.col_end; ++m) {
        const int16_t* w = static_cast<const int16_t*>(a.panel) + m * padded + k0;
        for (int64_t r = 0; r < rows; ++r) {
          int32_t sum = 0;
          for (int64_t k = 0; k < words_used; ++k) sum += words[r][k] * w[k];
          int32_t* to = out + r * t.stride + (m - t.col_begin);
          *to = k0 > 0 ? *to + sum : sum;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nodebits
