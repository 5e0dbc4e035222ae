// Neighbour sums with one u8 weight per edge and head, of rows of bytes, two edges at a time: the
// codes of both lie side by side as words, and so do the weights. pmaddwd adds the two products in
// the int32 lane of a column, where a row's sums stay until its last edge.
#pragma once

#include <immintrin.h>

#include "contract/products.h"
#include "families/spmm.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

constexpr int64_t kWeightedColumns = 16;  // of a block

// Sixteen bytes, of which n are wanted; those behind `end` may not be read.
inline __m128i sixteen_bytes(const uint8_t* p, int64_t n, const uint8_t* end) {
  if (end - p >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const Tail<16> tail(p, static_cast<int>(n));
  return _mm_load_si128(reinterpret_cast<const __m128i*>(tail.bytes));
}

// Both edges' words of eight columns each.
inline __m256i low_words(__m128i a, __m128i b) {
  return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
}
inline __m256i high_words(__m128i a, __m128i b) {
  return _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
}

struct WeightedRows {
  const SpmmArgs& a;
  const uint8_t* table_end;
  const uint8_t* weight_end;
  bool prefetch;

  explicit WeightedRows(const SpmmArgs& args)
      : a(args),
        table_end(args.packed + args.table_bytes),
        weight_end(args.weight + args.num_edges * args.heads),
        prefetch(args.table_bytes > kPrefetchBytes) {}

  const uint8_t* row(int64_t e, int64_t column) const {
    if (prefetch) {
      const int64_t ahead = e + kPrefetchEdges < a.num_edges ? e + kPrefetchEdges : a.num_edges - 1;
      __builtin_prefetch(a.packed + static_cast<int64_t>(a.indices[ahead]) * a.num_cols + column);
    }
    return a.packed + static_cast<int64_t>(a.indices[e]) * a.num_cols + column;
  }
};

// Columns [column, column + 16 kBlocks) of one row, whose edges have one weight each. Of a last
// block with kTail only n columns exist.
template <int kBlocks, bool kTail>
inline void weighted_one_head(const WeightedRows& r, int64_t e, int64_t end, int64_t column,
                              int64_t n, int32_t* out) {
  __m256i acc[kBlocks][2];
  for (int b = 0; b < kBlocks; ++b) acc[b][0] = acc[b][1] = _mm256_setzero_si256();
  const auto load = [&](const uint8_t* p, int b) {
    if constexpr (kTail) return sixteen_bytes(p, n, r.table_end);
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + b * kWeightedColumns));
  };
  const uint8_t* weight = r.a.weight;
  for (; e + 2 <= end; e += 2) {
    const uint8_t *x = r.row(e, column), *y = r.row(e + 1, column);
    const __m256i w = _mm256_set1_epi32(weight[e] | weight[e + 1] << 16);
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      const __m128i p = load(x, b), q = load(y, b);
      acc[b][0] = _mm256_add_epi32(acc[b][0], _mm256_madd_epi16(low_words(p, q), w));
      acc[b][1] = _mm256_add_epi32(acc[b][1], _mm256_madd_epi16(high_words(p, q), w));
    }
  }
  if (e < end) {
    const uint8_t* x = r.row(e, column);
    const __m256i w = _mm256_set1_epi32(weight[e]);
    const __m128i none = _mm_setzero_si128();
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      const __m128i p = load(x, b);
      acc[b][0] = _mm256_add_epi32(acc[b][0], _mm256_madd_epi16(low_words(p, none), w));
      acc[b][1] = _mm256_add_epi32(acc[b][1], _mm256_madd_epi16(high_words(p, none), w));
    }
  }
  int32_t last[kWeightedColumns];
  for (int b = 0; b < kBlocks; ++b) {
    int32_t* to = kTail ? last : out + b * kWeightedColumns;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), acc[b][0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), acc[b][1]);
  }
  if constexpr (kTail) {
    for (int64_t c = 0; c < n; ++c) out[c] = last[c];
  }
}

// n columns of one row, at most 16. `head_of` says which of the weights from first_head on is that
// of each of them.
inline void weighted_heads(const WeightedRows& r, int64_t e, int64_t end, int64_t column, int64_t n,
                           int64_t first_head, __m128i head_of, int32_t* out) {
  const int64_t heads = r.a.heads - first_head;
  const auto weights = [&](int64_t edge) {
    const uint8_t* p = r.a.weight + edge * r.a.heads + first_head;
    return _mm_shuffle_epi8(sixteen_bytes(p, heads < 16 ? heads : 16, r.weight_end), head_of);
  };
  __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
  for (; e < end; e += 2) {
    __m128i q = _mm_setzero_si128(), v = q;
    const __m128i p = sixteen_bytes(r.row(e, column), n, r.table_end), w = weights(e);
    if (e + 1 < end) {
      q = sixteen_bytes(r.row(e + 1, column), n, r.table_end);
      v = weights(e + 1);
    }
    low = _mm256_add_epi32(low, _mm256_madd_epi16(low_words(p, q), low_words(w, v)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(high_words(p, q), high_words(w, v)));
  }
  int32_t last[kWeightedColumns];
  int32_t* to = n < kWeightedColumns ? last : out;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), high);
  for (int64_t c = 0; n < kWeightedColumns && c < n; ++c) out[c] = last[c];
}

inline void spmm_weighted_tile(Avx2, const SpmmArgs& a, const Tile& t) {
  const WeightedRows rows(a);
  if (a.heads == 1) {
    for (int64_t row = t.row_begin; row < t.row_end; ++row) {
      const int64_t e = a.indptr[row], end = a.indptr[row + 1];
      int32_t* out = t.out + (row - t.row_begin) * t.stride;
      int64_t c = t.col_begin;
      for (; c + 64 <= t.col_end; c += 64, out += 64)
        weighted_one_head<4, false>(rows, e, end, c, 16, out);
      for (; c + 16 <= t.col_end; c += 16, out += 16)
        weighted_one_head<1, false>(rows, e, end, c, 16, out);
      if (c < t.col_end) weighted_one_head<1, true>(rows, e, end, c, t.col_end - c, out);
    }
    return;
  }
  const int64_t width = a.num_cols / a.heads;
  constexpr int64_t kMostBlocks = 32;  // whose heads are at hand
  __m128i head_of[kMostBlocks];
  constexpr int64_t kMost = kMostBlocks * kWeightedColumns;
  for (int64_t c0 = t.col_begin; c0 < t.col_end; c0 += kMost) {
    const int64_t c1 = t.col_end - c0 < kMost ? t.col_end : c0 + kMost;
    for (int64_t c = c0; c < c1; c += kWeightedColumns) {
      uint8_t heads[16];
      for (int64_t j = 0; j < 16; ++j) heads[j] = static_cast<uint8_t>((c + j) / width - c / width);
      head_of[(c - c0) / kWeightedColumns] =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(heads));
    }
    for (int64_t row = t.row_begin; row < t.row_end; ++row) {
      int32_t* out = t.out + (row - t.row_begin) * t.stride + (c0 - t.col_begin);
      for (int64_t c = c0; c < c1; c += kWeightedColumns) {
        const int64_t n = c1 - c < kWeightedColumns ? c1 - c : kWeightedColumns;
        weighted_heads(rows, a.indptr[row], a.indptr[row + 1], c, n, c / width,
                       head_of[(c - c0) / kWeightedColumns], out + (c - c0));
      }
    }
  }
}

}  // namespace
}  // namespace nodebits
