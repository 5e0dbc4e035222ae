// Narrow propagation in slices (sliced.h): 64 / W rows of W byte codes fill a register, an edge of
// each is one load and one addition, and their epilogues share four vectors of floats. Operations
// and their order are those of lane_rows.
#pragma once

#include <immintrin.h>

#include "contract/kernels.h"
#include "families/pack.h"
#include "isa/avx512/quantize.h"

namespace nodebits {
namespace {

// Sums, byte by byte, of the rows that edges [s, stop) of every row of a slice point to; no byte
// overflows.
template <int W, class Index>
inline __m512i byte_sums(const uint8_t* table, const Index* e, int64_t s, int64_t stop) {
  constexpr int kRows = 64 / W;
  if constexpr (W == 16) {
    __m128i sum[4] = {};
    for (; s < stop; ++s) {
      unrolled<4>([&]<int K>() __attribute__((always_inline)) {
        const uint8_t* row = table + static_cast<int64_t>(e[s * kRows + K]) * W;
        sum[K] = _mm_add_epi8(sum[K], _mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
      });
    }
    __m512i v = _mm512_castsi128_si512(sum[0]);
    v = _mm512_inserti32x4(v, sum[1], 1);
    v = _mm512_inserti32x4(v, sum[2], 2);
    return _mm512_inserti32x4(v, sum[3], 3);
  } else {
    __m512i sum = _mm512_setzero_si512();
    for (; s < stop; ++s) {
      const Index* from = e + s * kRows;
      if constexpr (W == 8) {
        const __m256i at =
            sizeof(Index) == 2
                ? _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))
                : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        sum = _mm512_add_epi8(sum, _mm512_i32gather_epi64(at, table, 8));
      } else {
        const __m512i at =
            sizeof(Index) == 2
                ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))
                : _mm512_loadu_si512(from);
        sum = _mm512_add_epi8(sum, _mm512_i32gather_epi32(at, table, 4));
      }
    }
    return sum;
  }
}

// Sums of 64 lanes, sixteen to a vector: bytes as long as they hold, then 16 bits, then 32.
template <int W, class Index>
inline void slice_sum(const uint8_t* table, const Index* e, int64_t steps, int64_t in_bytes,
                      __m512i* sums) {
  for (int i = 0; i < 4; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t s = 0; s < steps;) {
    __m512i low = _mm512_setzero_si512(), high = _mm512_setzero_si512();
    for (int k = 0; k < 257 && s < steps; ++k) {
      const int64_t stop = s + in_bytes < steps ? s + in_bytes : steps;
      const __m512i bytes = byte_sums<W>(table, e, s, stop);
      s = stop;
      low = _mm512_add_epi16(low, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes)));
      high = _mm512_add_epi16(high, _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(bytes, 1)));
    }
    const __m256i quarters[4] = {_mm512_castsi512_si256(low), _mm512_extracti64x4_epi64(low, 1),
                                 _mm512_castsi512_si256(high), _mm512_extracti64x4_epi64(high, 1)};
    for (int i = 0; i < 4; ++i)
      sums[i] = _mm512_add_epi32(sums[i], _mm512_cvtepu16_epi32(quarters[i]));
  }
}

template <int W, bool kMultiply, class Index>
void slices_as(const SliceArgs& a, const Index* edges, const float* inverse, int64_t begin,
               int64_t end) {
  constexpr int kRows = 64 / W;
  const __mmask16 rows = static_cast<__mmask16>((1u << kRows) - 1);
  const int64_t in_bytes = a.table != nullptr ? 255 / ((1 << a.bits) - 1) : 1;
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i row_in_vector = _mm512_srli_epi32(lane, W == 4 ? 2 : W == 8 ? 3 : 4);
  const __m512 scale = _mm512_loadu_ps(a.scale), zero_point = _mm512_loadu_ps(a.zero_point);
  const __m512 next_scale = _mm512_loadu_ps(a.next_scale);
  const __m512 next_made_with = _mm512_loadu_ps(a.next_made_with);
  const __m512 next_inverse = _mm512_loadu_ps(inverse);
  const __m512 keep = _mm512_set1_ps(a.keep), teleport = _mm512_set1_ps(a.teleport);
  const __m512 top = _mm512_set1_ps(static_cast<float>((1 << a.next_bits) - 1));
  // Stores of bytes may change anything, for all the compiler knows: nothing is read through `a`
  // below.
  const SliceArgs l = a;
  __m512i of_row[4];
  for (int i = 0; i < 4; ++i)
    of_row[i] = _mm512_add_epi32(row_in_vector, _mm512_set1_epi32(i * (16 / W)));
  for (int64_t g = begin; g < end; ++g) {
    const __m512 factors = _mm512_maskz_loadu_ps(rows, l.factor + g * kRows);
    const float* x = l.x + g * 64;
    __m512 y[4], factor[4];
    unrolled<4>([&]<int i>() __attribute__((always_inline)) {
      y[i] = _mm512_loadu_ps(x + i * 16);
      factor[i] = _mm512_permutexvar_ps(of_row[i], factors);
    });
    if (l.table != nullptr) {
      const __m512 degrees = _mm512_maskz_loadu_ps(rows, l.degree + g * kRows);
      __m512i sums[4];
      slice_sum<W>(l.table, edges + l.starts[g] * kRows, l.starts[g + 1] - l.starts[g], in_bytes,
                   sums);
      unrolled<4>([&]<int i>() __attribute__((always_inline)) {
        const __m512 degree = _mm512_permutexvar_ps(of_row[i], degrees);
        const __m512 own = _mm512_mul_ps(y[i], teleport);
        __m512 v = _mm512_sub_ps(_mm512_cvtepi32_ps(sums[i]), _mm512_mul_ps(degree, zero_point));
        v = _mm512_mul_ps(_mm512_mul_ps(v, scale), factor[i]);
        y[i] = _mm512_add_ps(_mm512_mul_ps(v, keep), own);
      });
    }
    if (l.out != nullptr) {
      for (int i = 0; i < 4; ++i) _mm512_storeu_ps(l.out + g * 64 + i * 16, y[i]);
      continue;
    }
    uint8_t* next = l.next + g * 64;
    unrolled<4>([&]<int i>() __attribute__((always_inline)) {
      const __m512 code = quantized<kMultiply>(_mm512_mul_ps(y[i], factor[i]), next_scale,
                                               next_made_with, next_inverse, top);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(next + i * 16),
                       _mm512_cvtepi32_epi8(_mm512_castps_si512(code)));
    });
  }
}

template <int W, class Index>
void slices_of(const SliceArgs& a, const Index* edges, int64_t begin, int64_t end) {
  float room[16];
  if (exact_inverses(Avx512{}, a.next_scale, a.next_made_with, 16, room) != nullptr) {
    slices_as<W, true>(a, edges, room, begin, end);
  } else {
    slices_as<W, false>(a, edges, room, begin, end);
  }
}

template <int W>
void slices_at(const SliceArgs& a, int64_t begin, int64_t end) {
  if (a.short_edges != nullptr) {
    slices_of<W>(a, a.short_edges, begin, end);
  } else {
    slices_of<W>(a, a.edges, begin, end);
  }
}

inline void lane_slices(const SliceArgs& a, int64_t begin, int64_t end) {
  switch (a.lanes) {
    case 4:
      return slices_at<4>(a, begin, end);
    case 8:
      return slices_at<8>(a, begin, end);
    default:
      return slices_at<16>(a, begin, end);
  }
}

constexpr auto slices_of(Avx512) -> decltype(Kernels::lane_slices) { return lane_slices; }

}  // namespace
}  // namespace nodebits
