// u8 x s8 products with vpdpbusd, which sums four products into an int32 lane without saturation.
// Weight panel: strips of 64 outputs, [depth / 4][vectors][16 outputs][4]; the last strip has only
// the vectors it needs, so seven classes cost one vector and not four. Depth is padded with zero
// weights.
#pragma once

#include <immintrin.h>

#include "contract/products.h"
#include "families/gemm_weight.h"
#include "isa/avx512/pack.h"
#include "isa/avx512/traits.h"

namespace nodebits {
namespace {

inline int64_t padded_depth(Avx512, int64_t depth) { return (depth + 3) / 4 * 4; }

inline size_t panel_bytes(Avx512 isa, const WeightArgs& w) {
  return static_cast<size_t>(padded_depth(isa, w.depth)) *
         static_cast<size_t>((w.num_out + 15) / 16 * 16);
}

inline void make_panel(Avx512 isa, const WeightArgs& w, void* memory) {
  int8_t* panel = static_cast<int8_t*>(memory);
  __builtin_memset(panel, 0, panel_bytes(isa, w));
  const int64_t padded = padded_depth(isa, w.depth);
  for (int64_t m = 0; m < w.num_out; ++m) {
    const int64_t strip = m / 64;
    const int64_t left = (w.num_out + 15) / 16 - strip * 4;
    const int64_t vectors = left < 4 ? left : 4;
    int8_t* to = panel + strip * 64 * padded + (m % 64) * 4;
    decode_weight_row(isa, w, m, [&](int64_t k, int value) {
      to[k / 4 * vectors * 64 + k % 4] = static_cast<int8_t>(value);
    });
  }
}

// `rows` of kRows are stored; the others repeat a row that exists. The row loops are unrolled by
// template: left to the compiler, the accumulators end up in memory.
template <int kRows, int kVectors>
inline void gemm_micro(const uint8_t* const* x, int64_t quads, const int8_t* panel, int32_t* out,
                       int64_t out_stride, int rows, __mmask16 last, bool add) {
  __m512i acc[kRows][kVectors];
  unrolled<kRows>([&]<int r>() __attribute__((always_inline)) {
    for (int v = 0; v < kVectors; ++v) acc[r][v] = _mm512_setzero_si512();
  });
  for (int64_t k = 0; k < quads; ++k) {
    __m512i w[kVectors];
    for (int v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(panel + (k * kVectors + v) * 64);
    unrolled<kRows>([&]<int r>() __attribute__((always_inline)) {
      int32_t four;
      __builtin_memcpy(&four, x[r] + 4 * k, 4);
      const __m512i a = _mm512_set1_epi32(four);
      for (int v = 0; v < kVectors; ++v) add_products(acc[r][v], a, w[v]);
    });
  }
  unrolled<kRows>([&]<int r>() __attribute__((always_inline)) {
    if (r >= rows) return;
    for (int v = 0; v < kVectors; ++v) {
      int32_t* to = out + r * out_stride + 16 * v;
      const __mmask16 mask = v == kVectors - 1 ? last : static_cast<__mmask16>(0xffff);
      __m512i sum = acc[r][v];
      if (add) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, to));
      _mm512_mask_storeu_epi32(to, mask, sum);
    }
  });
}

template <int kRows, int kVectors>
inline void gemm_strip(const uint8_t* x, int64_t x_stride, int64_t num_rows, int64_t quads,
                       const int8_t* panel, int32_t* out, int64_t out_stride, __mmask16 last,
                       bool add) {
  for (int64_t i = 0; i < num_rows; i += kRows) {
    const int rows = num_rows - i < kRows ? static_cast<int>(num_rows - i) : kRows;
    const uint8_t* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = x + (i + (r < rows ? r : 0)) * x_stride;
    gemm_micro<kRows, kVectors>(row, quads, panel, out + i * out_stride, out_stride, rows, last,
                                add);
  }
}

inline void gemm_tile(Avx512 isa, const GemmArgs& a, const Tile& t) {
  constexpr int64_t kGemmDepth =
      1024;  // depth of one pass; a multiple of 8, so that it starts on a byte
  constexpr int64_t kGemmRows = 60;  // rows unpacked together; a multiple of every tile height
  alignas(64) uint8_t codes[kGemmRows * (kGemmDepth + 64)];
  const int64_t padded = padded_depth(isa, a.depth);
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits);
  for (int64_t i = t.row_begin; i < t.row_end; i += kGemmRows) {
    const int64_t rows = t.row_end - i < kGemmRows ? t.row_end - i : kGemmRows;
    int32_t* out = t.out + (i - t.row_begin) * t.stride;
    for (int64_t k0 = 0; k0 < a.depth; k0 += kGemmDepth) {
      const int64_t n = a.depth - k0 < kGemmDepth ? a.depth - k0 : kGemmDepth;
      // An odd number of 64-byte lines between rows keeps the rows of a tile out of the same cache
      // sets.
      int64_t x_stride = (n + 63) / 64 * 64 + ((n + 63) / 64 % 2 == 0 ? 64 : 0);
      const uint8_t* x = codes;
      if (a.x_bits == 8 && n % 4 == 0) {  // codes as they are
        x = a.x + i * stride + k0;
        x_stride = stride;
      } else {
        with_bits(a.x_bits, [&]<int B>() {
          for (int64_t r = 0; r < rows; ++r) {
            uint8_t* to = codes + r * x_stride;
            const uint8_t* from = a.x + (i + r) * stride + k0 / 8 * B;
            // The rows of the next round: products take longer than hardware prefetchers wait.
            for (int64_t b = 0; b < n * B / 8; b += 64)
              __builtin_prefetch(from + kGemmRows * stride + b);
            unpack_codes<B>(isa, from, n, to);
            for (int64_t k = n; k < padded_depth(isa, n); ++k) to[k] = 0;
          }
        });
      }
      for (int64_t m = t.col_begin; m < t.col_end; m += 64) {
        const int64_t left = t.col_end - m < 64 ? t.col_end - m : 64;
        const int vectors = static_cast<int>((left + 15) / 16);
        const __mmask16 last = static_cast<__mmask16>((1u << (left - 16 * (vectors - 1))) - 1);
        const int8_t* panel = static_cast<const int8_t*>(a.panel) + m * padded + k0 * 16 * vectors;
        int32_t* to = out + (m - t.col_begin);
        const int64_t quads = padded_depth(isa, n) / 4;
        const bool add = k0 > 0;
        switch (vectors) {
          case 1:
            gemm_strip<12, 1>(x, x_stride, rows, quads, panel, to, t.stride, last, add);
            break;
          case 2:
            gemm_strip<10, 2>(x, x_stride, rows, quads, panel, to, t.stride, last, add);
            break;
          case 3:
            gemm_strip<6, 3>(x, x_stride, rows, quads, panel, to, t.stride, last, add);
            break;
          default:
            gemm_strip<5, 4>(x, x_stride, rows, quads, panel, to, t.stride, last, add);
            break;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nodebits
