// u8 x s8 products in 16 bits: pmaddwd sums two products into an int32 lane exactly. (pmaddubsw
// would saturate: 2 * 255 * 127 does not fit 16 bits.) Weight panel: strips of 16 outputs, [depth /
// 2][2 vectors][8 outputs][2] int16.
#pragma once

#include <immintrin.h>

#include "contract/products.h"
#include "families/gemm_weight.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

constexpr int kTileRows = 6;

inline int64_t padded_depth(Avx2, int64_t depth) { return (depth + 1) / 2 * 2; }

inline size_t panel_bytes(Avx2 isa, const WeightArgs& w) {
  return static_cast<size_t>(padded_depth(isa, w.depth)) *
         static_cast<size_t>((w.num_out + 15) / 16 * 16) * 2;
}

inline void make_panel(Avx2 isa, const WeightArgs& w, void* memory) {
  int16_t* panel = static_cast<int16_t*>(memory);
  __builtin_memset(panel, 0, panel_bytes(isa, w));
  for (int64_t m = 0; m < w.num_out; ++m) {
    int16_t* to = panel + m / 16 * 16 * padded_depth(isa, w.depth) + m % 16 * 2;
    decode_weight_row(isa, w, m, [&](int64_t k, int value) {
      to[k / 2 * 32 + k % 2] = static_cast<int16_t>(value);
    });
  }
}

inline void gemm_micro(const int16_t* const* x, int64_t pairs, const int16_t* panel, int32_t* out,
                       int64_t out_stride, int rows, int64_t columns, bool add) {
  __m256i acc[kTileRows][2];
  for (int r = 0; r < kTileRows; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
  for (int64_t k = 0; k < pairs; ++k) {
    const __m256i* w = reinterpret_cast<const __m256i*>(panel + k * 32);
    const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      int32_t two;
      __builtin_memcpy(&two, x[r] + 2 * k, 4);
      const __m256i a = _mm256_set1_epi32(two);
      acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(a, w0));
      acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(a, w1));
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
    if (r >= rows) break;
    int32_t sums[16];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), acc[r][0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8), acc[r][1]);
    int32_t* to = out + r * out_stride;
    for (int64_t c = 0; c < columns; ++c) to[c] = add ? to[c] + sums[c] : sums[c];
  }
}

inline void gemm_tile(Avx2 isa, const GemmArgs& a, const Tile& t) {
  constexpr int64_t kGemmDepth = 512;
  constexpr int64_t kGemmRows = 24;
  uint8_t codes[kGemmDepth];
  alignas(64) int16_t words[kGemmRows * (kGemmDepth + 32)];
  const int64_t padded = padded_depth(isa, a.depth);
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits);
  for (int64_t i = t.row_begin; i < t.row_end; i += kGemmRows) {
    const int64_t rows = t.row_end - i < kGemmRows ? t.row_end - i : kGemmRows;
    int32_t* out = t.out + (i - t.row_begin) * t.stride;
    for (int64_t k0 = 0; k0 < a.depth; k0 += kGemmDepth) {
      const int64_t n = a.depth - k0 < kGemmDepth ? a.depth - k0 : kGemmDepth;
      const int64_t x_stride = (n + 31) / 32 * 32 + ((n + 31) / 32 % 2 == 0 ? 32 : 0);
      with_bits(a.x_bits, [&]<int B>() {
        for (int64_t r = 0; r < rows; ++r) {
          unpack_codes<B>(isa, a.x + (i + r) * stride + k0 / 8 * B, n, codes);
          int16_t* to = words + r * x_stride;
          for (int64_t k = 0; k < n; ++k) to[k] = codes[k];
          if (n % 2 != 0) to[n] = 0;
        }
      });
      for (int64_t m = t.col_begin; m < t.col_end; m += 16) {
        const int64_t columns = t.col_end - m < 16 ? t.col_end - m : 16;
        const int16_t* panel = static_cast<const int16_t*>(a.panel) + m * padded + k0 * 16;
        for (int64_t r0 = 0; r0 < rows; r0 += kTileRows) {
          const int tile = rows - r0 < kTileRows ? static_cast<int>(rows - r0) : kTileRows;
          const int16_t* row[kTileRows];
          for (int r = 0; r < kTileRows; ++r) row[r] = words + (r0 + (r < tile ? r : 0)) * x_stride;
          gemm_micro(row, padded_depth(isa, n) / 2, panel, out + r0 * t.stride + (m - t.col_begin),
                     t.stride, tile, columns, k0 > 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nodebits
