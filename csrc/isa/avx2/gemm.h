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
#include "isa/avx2/pack.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

constexpr int kTileRows = 4;
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

// The additions are written as instructions: of intrinsics gcc 12 makes a copy of every sum in
// every step, and loads a weight once per row.
inline __m256i plus_words(__m256i sum, __m256i products) {
  asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
  return sum;
}

inline __m256i plus_ints(__m256i sum, __m256i products) {
  asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
  return sum;
}

inline __m256i in_register(__m256i v) {
  asm("" : "+x"(v));
  return v;
}

// Sixteen sums of a row, of which the first `columns` exist.
inline void write_sums(__m256i low, __m256i high, int32_t* to, int64_t columns, bool add) {
  alignas(32) int32_t part[16];
  const bool whole = columns >= 16;
  if (!whole && add) __builtin_memcpy(part, to, static_cast<size_t>(columns) * 4);
  __m256i* at = reinterpret_cast<__m256i*>(whole ? to : part);
  if (add) {
    low = _mm256_add_epi32(low, _mm256_loadu_si256(at));
    high = _mm256_add_epi32(high, _mm256_loadu_si256(at + 1));
  }
  _mm256_storeu_si256(at, low);
  _mm256_storeu_si256(at + 1, high);
  if (!whole) __builtin_memcpy(to, part, static_cast<size_t>(columns) * 4);
}

// Rows of x with all outputs, sixteen at a time.
template <class T>
struct RowsByPanel {
  const T* row[kTileRows];
  int rows;        // that are stored; the others repeat a row that exists
  int64_t steps;   // of four bytes of a row: codes, or 16-bit words
  int64_t held;    // steps whose sums a lane holds
  const T* panel;  // of the first output
  int64_t strip;   // values of the panel for sixteen outputs
  int64_t outputs;
  int32_t* out;
  int64_t out_stride;
  bool add;
};

// Rows are unrolled by template: left to the compiler the sums end up in memory, as those of more
// rows do.
template <class T>
__attribute__((noinline)) void gemm_rows(RowsByPanel<T> g) {
  constexpr bool kBytes = sizeof(T) == 1;
  for (; g.outputs > 0; g.outputs -= 16, g.panel += g.strip, g.out += 16) {
    const T* row[kTileRows];
    for (int r = 0; r < kTileRows; ++r) row[r] = g.row[r];
    const __m256i* w = reinterpret_cast<const __m256i*>(g.panel);
    bool add = g.add;
    for (int64_t k = 0; k < g.steps;) {
      const int64_t stop = k + g.held < g.steps ? k + g.held : g.steps;
      __m256i acc[kTileRows][2];
      unrolled<kTileRows>([&]<int r>() __attribute__((always_inline)) {
        acc[r][0] = acc[r][1] = _mm256_setzero_si256();
      });
      for (; k < stop; ++k, w += 2) {
        const __m256i w0 = in_register(_mm256_loadu_si256(w));
        const __m256i w1 = in_register(_mm256_loadu_si256(w + 1));
        unrolled<kTileRows>([&]<int r>() __attribute__((always_inline)) {
          int32_t step;
          __builtin_memcpy(&step, row[r] + 4 / sizeof(T) * k, 4);
          const __m256i a = _mm256_set1_epi32(step);
          if constexpr (kBytes) {
            acc[r][0] = plus_words(acc[r][0], _mm256_maddubs_epi16(a, w0));
            acc[r][1] = plus_words(acc[r][1], _mm256_maddubs_epi16(a, w1));
          } else {
            acc[r][0] = plus_ints(acc[r][0], _mm256_madd_epi16(a, w0));
            acc[r][1] = plus_ints(acc[r][1], _mm256_madd_epi16(a, w1));
          }
        });
      }
      const __m256i ones = _mm256_set1_epi16(1);
      unrolled<kTileRows>([&]<int r>() __attribute__((always_inline)) {
        if (r >= g.rows) return;
        if constexpr (kBytes) {
          for (int v = 0; v < 2; ++v) acc[r][v] = _mm256_madd_epi16(acc[r][v], ones);
        }
        write_sums(acc[r][0], acc[r][1], g.out + r * g.out_stride, g.outputs, add);
      });
      add = true;
    }
  }
}

constexpr int64_t kGemmDepth = 512;
constexpr int64_t kGemmRows = 24;

// The product of rows as T, a byte or a word.
template <class T>
void gemm_tile_as(Avx2 isa, const GemmArgs& a, const Tile& t, int64_t held, const T* panel) {
  constexpr int64_t kStep = 4 / sizeof(T);
  uint8_t codes[kGemmDepth];
  alignas(64) T values[kGemmRows * (kGemmDepth + 32)];
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits), padded = padded_depth(isa, a.depth);
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
      for (int64_t r0 = 0; r0 < rows; r0 += kTileRows) {
        const int tile = rows - r0 < kTileRows ? static_cast<int>(rows - r0) : kTileRows;
        RowsByPanel<T> g{{},
                         tile,
                         padded_depth(isa, n) / kStep,
                         held,
                         panel + t.col_begin * padded + k0 * 16,
                         padded * 16,
                         t.col_end - t.col_begin,
                         t.out + (i - t.row_begin + r0) * t.stride,
                         t.stride,
                         k0 > 0};
        for (int r = 0; r < kTileRows; ++r)
          g.row[r] = values + (r0 + (r < tile ? r : 0)) * x_stride;
        gemm_rows(g);
      }
    }
  }
}

inline void gemm_tile(Avx2 isa, const GemmArgs& a, const Tile& t) {
  int32_t largest;
  __builtin_memcpy(&largest, a.panel, sizeof(largest));
  const uint8_t* panel = static_cast<const uint8_t*>(a.panel) + kPanelHead;
  if (largest > kMostByteWeight) {
    // Sums of all of a row: the contract of a product is that int32 holds them.
    return gemm_tile_as<int16_t>(isa, a, t, a.depth, reinterpret_cast<const int16_t*>(panel));
  }
  const int64_t held = 32767 / (2 * ((1 << a.x_bits) - 1) * largest);
  gemm_tile_as<uint8_t>(isa, a, t, held, panel);
}

}  // namespace
}  // namespace nodebits
