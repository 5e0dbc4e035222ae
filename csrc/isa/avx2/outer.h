// Sums of outer products: the codes of two edges lie side by side as words, less their zero points,
// and pmaddwd adds both products in the int32 lane of a column. The columns' words serve four
// heads.
#pragma once

#include <immintrin.h>

#include "families/outer.h"
#include "isa/avx2/weighted.h"

namespace nodebits {
namespace {

// Adds the products of kHeads heads and sixteen columns from c on, of which n exist.
template <int kHeads>
inline void add_outer_block(const OuterEdges& edges, const int16_t* zero, int64_t c, int64_t n,
                            int64_t num_cols, int64_t head, int32_t* out) {
  const __m256i* zeros = reinterpret_cast<const __m256i*>(zero + 2 * c);
  const __m256i zero_low = _mm256_loadu_si256(zeros), zero_high = _mm256_loadu_si256(zeros + 1);
  __m256i acc[kHeads][2];
  for (int h = 0; h < kHeads; ++h) acc[h][0] = acc[h][1] = _mm256_setzero_si256();
  const int32_t* weights = edges.weights + head;
  for (int64_t p = 0; p < edges.pairs; ++p, weights += edges.heads) {
    const __m128i x = sixteen_bytes(edges.rows[2 * p] + c, n, edges.end);
    const __m128i y = sixteen_bytes(edges.rows[2 * p + 1] + c, n, edges.end);
    const __m256i low = _mm256_sub_epi16(low_words(x, y), zero_low);
    const __m256i high = _mm256_sub_epi16(high_words(x, y), zero_high);
    unrolled<kHeads>([&]<int h>() __attribute__((always_inline)) {
      const __m256i w = _mm256_set1_epi32(weights[h]);
      acc[h][0] = _mm256_add_epi32(acc[h][0], _mm256_madd_epi16(low, w));
      acc[h][1] = _mm256_add_epi32(acc[h][1], _mm256_madd_epi16(high, w));
    });
  }
  for (int h = 0; h < kHeads; ++h) {
    int32_t* to = out + (head + h) * num_cols + c;
    alignas(32) int32_t sums[kOuterColumns];
    __m256i* lanes = reinterpret_cast<__m256i*>(n == kOuterColumns ? to : sums);
    if (n < kOuterColumns) __builtin_memset(sums, 0, sizeof(sums));
    _mm256_storeu_si256(lanes, _mm256_add_epi32(_mm256_loadu_si256(lanes), acc[h][0]));
    _mm256_storeu_si256(lanes + 1, _mm256_add_epi32(_mm256_loadu_si256(lanes + 1), acc[h][1]));
    for (int64_t i = 0; n < kOuterColumns && i < n; ++i) to[i] += sums[i];
  }
}

inline void add_outer(Avx2, const OuterEdges& edges, const int16_t* zero, int64_t num_cols,
                      int32_t* out) {
  for (int64_t c = 0; c < num_cols; c += kOuterColumns) {
    const int64_t n = num_cols - c < kOuterColumns ? num_cols - c : kOuterColumns;
    int64_t h = 0;
    for (; h + 4 <= edges.heads; h += 4) add_outer_block<4>(edges, zero, c, n, num_cols, h, out);
    for (; h + 2 <= edges.heads; h += 2) add_outer_block<2>(edges, zero, c, n, num_cols, h, out);
    for (; h < edges.heads; ++h) add_outer_block<1>(edges, zero, c, n, num_cols, h, out);
  }
}

}  // namespace
}  // namespace nodebits
