// Products of unsigned codes with signed weights, of two kinds by the largest weight:
// * up to 64: pmaddubsw adds two products of bytes in 16 bits, 2 * 255 * 64 < 2^15, and so many of
//   these are added there as 16 bits hold, before they are widened.
// * above: it would saturate. Words: pmaddwd adds two products in an int32 lane.
// Weight panel: a line that says which, then strips of 16 outputs: [depth / 4][2 vectors][8
// outputs][4] int8, or [depth / 2][2 vectors][8 outputs][2] int16.
#pragma once

#include <immintrin.h>

#include "contract/products.h"
#include "families/gemm_weight.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

constexpr int kTileRows = 6;
constexpr int kByteRows = 4;  // of more rows the sums would not stay in registers
constexpr int kMostByteWeight = 64;
constexpr size_t kPanelHead = 64;

inline int64_t padded_depth(Avx2, int64_t depth) { return (depth + 3) / 4 * 4; }

inline int largest_weight(const WeightArgs& w) {
  return w.midrise ? (1 << w.bits) - 1 : 1 << (w.bits - 1);
}

inline size_t panel_bytes(Avx2 isa, const WeightArgs& w) {
  const int64_t outputs = (w.num_out + 15) / 16 * 16;
  const int64_t size = largest_weight(w) <= kMostByteWeight ? 1 : 2;
  return kPanelHead + static_cast<size_t>(padded_depth(isa, w.depth) * outputs * size);
}

// kTogether: columns of an output that lie side by side.
template <class T, int64_t kTogether>
inline void fill_panel(Avx2 isa, const WeightArgs& w, T* panel) {
  for (int64_t m = 0; m < w.num_out; ++m) {
    T* to = panel + m / 16 * 16 * padded_depth(isa, w.depth) + m % 16 * kTogether;
    decode_weight_row(isa, w, m, [&](int64_t k, int value) {
      to[k / kTogether * 16 * kTogether + k % kTogether] = static_cast<T>(value);
    });
  }
}

inline void make_panel(Avx2 isa, const WeightArgs& w, void* memory) {
  __builtin_memset(memory, 0, panel_bytes(isa, w));
  const int32_t largest = largest_weight(w);
  __builtin_memcpy(memory, &largest, sizeof(largest));
  uint8_t* panel = static_cast<uint8_t*>(memory) + kPanelHead;
  if (largest <= kMostByteWeight) {
    fill_panel<int8_t, 4>(isa, w, reinterpret_cast<int8_t*>(panel));
  } else {
    fill_panel<int16_t, 2>(isa, w, reinterpret_cast<int16_t*>(panel));
  }
}

inline void write_sums(const __m256i (*acc)[2], int32_t* out, int64_t out_stride, int rows,
                       int64_t columns, bool add) {
  for (int r = 0; r < rows; ++r) {
    int32_t* to = out + r * out_stride;
    if (columns == 16) {
      __m256i* low = reinterpret_cast<__m256i*>(to);
      for (int v = 0; v < 2; ++v) {
        const __m256i now = acc[r][v];
        _mm256_storeu_si256(low + v,
                            add ? _mm256_add_epi32(_mm256_loadu_si256(low + v), now) : now);
      }
      continue;
    }
    int32_t sums[16];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), acc[r][0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8), acc[r][1]);
    for (int64_t c = 0; c < columns; ++c) to[c] = add ? to[c] + sums[c] : sums[c];
  }
}

// `held`: fours of columns whose sums 16 bits hold.
inline void gemm_bytes(const uint8_t* const* x, int64_t fours, int64_t held, const int8_t* panel,
                       int32_t* out, int64_t out_stride, int rows, int64_t columns, bool add) {
  __m256i sums[kByteRows][2];
  for (int r = 0; r < kByteRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  for (int64_t k0 = 0; k0 < fours; k0 += held) {
    const int64_t k1 = k0 + held < fours ? k0 + held : fours;
    __m256i acc[kByteRows][2];
    for (int r = 0; r < kByteRows; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
    for (int64_t k = k0; k < k1; ++k) {
      const __m256i* w = reinterpret_cast<const __m256i*>(panel + k * 64);
      const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
#pragma GCC unroll 4
      for (int r = 0; r < kByteRows; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x[r] + 4 * k, 4);
        const __m256i a = _mm256_set1_epi32(four);
        acc[r][0] = _mm256_add_epi16(acc[r][0], _mm256_maddubs_epi16(a, w0));
        acc[r][1] = _mm256_add_epi16(acc[r][1], _mm256_maddubs_epi16(a, w1));
      }
    }
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int r = 0; r < kByteRows; ++r) {
      sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(acc[r][0], ones));
      sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(acc[r][1], ones));
    }
  }
  write_sums(sums, out, out_stride, rows, columns, add);
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
  write_sums(acc, out, out_stride, rows, columns, add);
}

constexpr int64_t kGemmDepth = 512;
constexpr int64_t kGemmRows = 24;

// Blocks of rows and columns as T, a byte or a word: block(rows, first row, depth k0, its columns,
// stride between rows).
template <class T, int kRows, class F>
inline void each_block_of(Avx2 isa, const GemmArgs& a, const Tile& t, const F& block) {
  uint8_t codes[kGemmDepth];
  alignas(64) T values[kGemmRows * (kGemmDepth + 32)];
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits);
  for (int64_t i = t.row_begin; i < t.row_end; i += kGemmRows) {
    const int64_t rows = t.row_end - i < kGemmRows ? t.row_end - i : kGemmRows;
    for (int64_t k0 = 0; k0 < a.depth; k0 += kGemmDepth) {
      const int64_t n = a.depth - k0 < kGemmDepth ? a.depth - k0 : kGemmDepth;
      const int64_t x_stride = (n + 31) / 32 * 32 + ((n + 31) / 32 % 2 == 0 ? 32 : 0);
      with_bits(a.x_bits, [&]<int B>() {
        for (int64_t r = 0; r < rows; ++r) {
          T* to = values + r * x_stride;
          const uint8_t* from = a.x + (i + r) * stride + k0 / 8 * B;
          if constexpr (sizeof(T) == 1) {
            unpack_codes<B>(isa, from, n, to);
          } else {
            unpack_codes<B>(isa, from, n, codes);
            for (int64_t k = 0; k < n; ++k) to[k] = codes[k];
          }
          for (int64_t k = n; k % 4 != 0; ++k) to[k] = 0;
        }
      });
      for (int64_t r0 = 0; r0 < rows; r0 += kRows) {
        const int tile = rows - r0 < kRows ? static_cast<int>(rows - r0) : kRows;
        const T* row[kRows];
        for (int r = 0; r < kRows; ++r) row[r] = values + (r0 + (r < tile ? r : 0)) * x_stride;
        block(row, tile, i - t.row_begin + r0, k0, n);
      }
    }
  }
}

inline void gemm_tile(Avx2 isa, const GemmArgs& a, const Tile& t) {
  int32_t largest;
  __builtin_memcpy(&largest, a.panel, sizeof(largest));
  const uint8_t* panel = static_cast<const uint8_t*>(a.panel) + kPanelHead;
  const int64_t padded = padded_depth(isa, a.depth);
  if (largest > kMostByteWeight) {
    const int16_t* words = reinterpret_cast<const int16_t*>(panel);
    each_block_of<int16_t, kTileRows>(
        isa, a, t, [&](const int16_t* const* x, int rows, int64_t first, int64_t k0, int64_t n) {
          for (int64_t m = t.col_begin; m < t.col_end; m += 16) {
            const int64_t columns = t.col_end - m < 16 ? t.col_end - m : 16;
            gemm_micro(x, padded_depth(isa, n) / 2, words + m * padded + k0 * 16,
                       t.out + first * t.stride + (m - t.col_begin), t.stride, rows, columns,
                       k0 > 0);
          }
        });
    return;
  }
  const int8_t* bytes = reinterpret_cast<const int8_t*>(panel);
  const int64_t held = 32767 / (2 * ((1 << a.x_bits) - 1) * largest);
  each_block_of<uint8_t, kByteRows>(
      isa, a, t, [&](const uint8_t* const* x, int rows, int64_t first, int64_t k0, int64_t n) {
        for (int64_t m = t.col_begin; m < t.col_end; m += 16) {
          const int64_t columns = t.col_end - m < 16 ? t.col_end - m : 16;
          gemm_bytes(x, padded_depth(isa, n) / 4, held, bytes + m * padded + k0 * 16,
                     t.out + first * t.stride + (m - t.col_begin), t.stride, rows, columns, k0 > 0);
        }
      });
}

}  // namespace
}  // namespace nodebits
