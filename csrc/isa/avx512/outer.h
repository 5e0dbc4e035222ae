// Sums of outer products: the codes of two edges lie side by side as words, less their zero points,
// and vpdpwssd adds both products in the int32 lane of a column. The columns' words serve eight
// heads.
#pragma once

#include <immintrin.h>

#include "families/outer.h"
#include "isa/avx512/traits.h"

namespace nodebits {
namespace {

// Adds the products of kHeads heads and the columns from c on that `mask` has.
template <int kHeads>
inline void add_outer_block(const OuterEdges& edges, const int16_t* zero, int64_t c, __mmask16 mask,
                            int64_t num_cols, int64_t head, int32_t* out) {
  const __m512i zeros = _mm512_loadu_si512(zero + 2 * c);
  __m512i acc[kHeads];
  for (int h = 0; h < kHeads; ++h)
    acc[h] = _mm512_maskz_loadu_epi32(mask, out + (head + h) * num_cols + c);
  const int32_t* weights = edges.weights + head;
  for (int64_t p = 0; p < edges.pairs; ++p, weights += edges.heads) {
    const __m128i x = _mm_maskz_loadu_epi8(mask, edges.rows[2 * p] + c);
    const __m128i y = _mm_maskz_loadu_epi8(mask, edges.rows[2 * p + 1] + c);
    const __m256i both = _mm256_set_m128i(_mm_unpackhi_epi8(x, y), _mm_unpacklo_epi8(x, y));
    const __m512i words = _mm512_sub_epi16(_mm512_cvtepu8_epi16(both), zeros);
    for (int h = 0; h < kHeads; ++h)
      acc[h] = _mm512_dpwssd_epi32(acc[h], words, _mm512_set1_epi32(weights[h]));
  }
  for (int h = 0; h < kHeads; ++h)
    _mm512_mask_storeu_epi32(out + (head + h) * num_cols + c, mask, acc[h]);
}

inline void add_outer(Avx512, const OuterEdges& edges, const int16_t* zero, int64_t num_cols,
                      int32_t* out) {
  for (int64_t c = 0; c < num_cols; c += kOuterColumns) {
    const int64_t n = num_cols - c;
    const __mmask16 mask = n < kOuterColumns ? static_cast<__mmask16>((1u << n) - 1) : 0xffff;
    int64_t h = 0;
    for (; h + 8 <= edges.heads; h += 8) add_outer_block<8>(edges, zero, c, mask, num_cols, h, out);
    for (; h + 4 <= edges.heads; h += 4) add_outer_block<4>(edges, zero, c, mask, num_cols, h, out);
    for (; h + 2 <= edges.heads; h += 2) add_outer_block<2>(edges, zero, c, mask, num_cols, h, out);
    for (; h < edges.heads; ++h) add_outer_block<1>(edges, zero, c, mask, num_cols, h, out);
  }
}

}  // namespace
}  // namespace nodebits
