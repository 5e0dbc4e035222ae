// Neighbour sums with one u8 weight per edge and head, two edges at a time.
//
// Of rows of bytes the codes of both lie side by side as words, and so do the weights. pmaddwd adds
// the two products in the int32 lane of a column, where a row's sums stay until its last edge.
//
// Of rows of 2 and 4 bits the bytes of both lie side by side; each of their fields in turn is
// masked and meets the pair of weights in pmaddubsw, whose sums of at most 2 * 255 * 15 fit 16
// bits. So much is added there as an unsigned word holds, before it is widened.
#pragma once

#include <immintrin.h>

#include "contract/products.h"
#include "families/pack.h"
#include "families/spmm.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

constexpr int64_t kWeightedColumns = 16;  // of a block

// Width in which rows of `bits` are multiplied.
constexpr uint8_t weighted_bits(Avx2, int bits) {
  constexpr uint8_t kBits[9] = {0, 2, 2, 4, 4, 8, 8, 8, 8};
  return kBits[bits];
}

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

// Sixteen codes of a row, of which n are wanted, as bytes; the first field begins a byte.
template <int B>
inline __m128i sixteen_codes(const uint8_t* p, int64_t n, const uint8_t* end) {
  if constexpr (B == 8) {
    return sixteen_bytes(p, n, end);
  } else {
    const __m128i x = sixteen_bytes(p, packed_row_bytes(n, B), end);
    static_assert(B == 4 || B == 2);
    // Fields of `bits` of a vector's lower bytes, one after another.
    const auto apart = [](__m128i bytes, int bits) {
      const __m128i field = _mm_set1_epi8(static_cast<char>((1 << bits) - 1));
      return _mm_unpacklo_epi8(_mm_and_si128(bytes, field),
                               _mm_and_si128(_mm_srli_epi16(bytes, bits), field));
    };
    const __m128i nibbles = apart(x, 4);
    return B == 4 ? nibbles : apart(nibbles, 2);
  }
}

struct WeightedRows {
  const SpmmArgs& a;
  int64_t stride;
  const uint8_t* table_end;
  const uint8_t* weight_end;
  bool prefetch;

  explicit WeightedRows(const SpmmArgs& args)
      : a(args),
        stride(packed_row_bytes(args.num_cols, args.bits)),
        table_end(args.packed + args.table_bytes),
        weight_end(args.weight + args.num_edges * args.heads),
        prefetch(args.table_bytes > kPrefetchBytes) {}

  const uint8_t* row(int64_t e, int64_t byte) const {
    if (prefetch) {
      const int64_t ahead = e + kPrefetchEdges < a.num_edges ? e + kPrefetchEdges : a.num_edges - 1;
      __builtin_prefetch(a.packed + static_cast<int64_t>(a.indices[ahead]) * stride + byte);
    }
    return a.packed + static_cast<int64_t>(a.indices[e]) * stride + byte;
  }
};

// Words of the kPlanes fields of bytes, eight bytes per 128-bit lane, to their columns in order;
// sixteen bytes later those of the other lane begin.
template <int kPlanes>
inline void put_words(const __m256i* planes, int32_t* out, bool add) {
  using V = Vec32<Avx2Bits>;
  constexpr int64_t kLane = 16 * kPlanes;
  if constexpr (kPlanes == 2) {
    V::flush16({planes[0]}, {planes[1]}, out, kLane, add);
  } else {
    static_assert(kPlanes == 4);
    const __m256i a = _mm256_unpacklo_epi16(planes[0], planes[1]),
                  b = _mm256_unpackhi_epi16(planes[0], planes[1]),
                  c = _mm256_unpacklo_epi16(planes[2], planes[3]),
                  d = _mm256_unpackhi_epi16(planes[2], planes[3]);
    const __m256i words[4] = {_mm256_unpacklo_epi32(a, c), _mm256_unpackhi_epi32(a, c),
                              _mm256_unpacklo_epi32(b, d), _mm256_unpackhi_epi32(b, d)};
    for (int i = 0; i < 4; ++i) {
      V::put(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(words[i])), out + 8 * i, add);
      V::put(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(words[i], 1)), out + kLane + 8 * i,
             add);
    }
  }
}

// Columns [column, column + 256 / B) of one row, whose edges have one weight each, at `byte` of
// packed rows. Of a last block with kTail only n columns exist.
template <int B, bool kTail>
inline void weighted_fields(const WeightedRows& r, int64_t e, int64_t end, int64_t byte, int64_t n,
                            int32_t* out) {
  constexpr int kPlanes = 8 / B;
  // Pairs of edges whose sums fit an unsigned word.
  constexpr int64_t kPairs = 65535 / (2 * 255 * ((1 << B) - 1));
  const __m256i field = _mm256_set1_epi8((1 << B) - 1);
  const uint8_t* weight = r.a.weight;
  const auto load = [&](const uint8_t* p) {
    if constexpr (kTail)
      return Avx2Bits::load_tail(p, static_cast<int>(packed_row_bytes(n, B)), r.table_end);
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  };
  int32_t last[kTail ? 256 / B : 1];
  int32_t* to = kTail ? last : out;
  bool more = false;
  do {
    const int64_t stop = e + 2 * kPairs < end ? e + 2 * kPairs : end;
    __m256i low[kPlanes], high[kPlanes];  // of the lower and the upper bytes of each lane
    for (int i = 0; i < kPlanes; ++i) low[i] = high[i] = _mm256_setzero_si256();
    const auto add = [&](__m256i p, __m256i q, int pair) __attribute__((always_inline)) {
      const __m256i w = _mm256_set1_epi16(static_cast<int16_t>(pair));
      const __m256i l = _mm256_unpacklo_epi8(p, q), h = _mm256_unpackhi_epi8(p, q);
      unrolled<kPlanes>([&]<int i>() __attribute__((always_inline)) {
        const __m256i a = _mm256_and_si256(_mm256_srli_epi16(l, B * i), field);
        const __m256i b = _mm256_and_si256(_mm256_srli_epi16(h, B * i), field);
        low[i] = _mm256_add_epi16(low[i], _mm256_maddubs_epi16(w, a));
        high[i] = _mm256_add_epi16(high[i], _mm256_maddubs_epi16(w, b));
      });
    };
    for (; e + 2 <= stop; e += 2) {
      const __m256i p = load(r.row(e, byte)), q = load(r.row(e + 1, byte));
      add(p, q, weight[e] | weight[e + 1] << 8);
    }
    if (e < stop) {
      add(load(r.row(e, byte)), _mm256_setzero_si256(), weight[e]);
      ++e;
    }
    put_words<kPlanes>(low, to, more);
    put_words<kPlanes>(high, to + 8 * kPlanes, more);
    more = true;
  } while (e < end);
  if constexpr (kTail) {
    for (int64_t c = 0; c < n; ++c) out[c] = last[c];
  }
}

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
template <int B>
inline void weighted_heads(const WeightedRows& r, int64_t e, int64_t end, int64_t column, int64_t n,
                           int64_t first_head, __m128i head_of, int32_t* out) {
  const int64_t byte = column * B / 8;
  const int64_t heads = r.a.heads - first_head;
  const auto weights = [&](int64_t edge) {
    const uint8_t* p = r.a.weight + edge * r.a.heads + first_head;
    return _mm_shuffle_epi8(sixteen_bytes(p, heads < 16 ? heads : 16, r.weight_end), head_of);
  };
  __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
  for (; e < end; e += 2) {
    __m128i q = _mm_setzero_si128(), v = q;
    const __m128i p = sixteen_codes<B>(r.row(e, byte), n, r.table_end), w = weights(e);
    if (e + 1 < end) {
      q = sixteen_codes<B>(r.row(e + 1, byte), n, r.table_end);
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

template <int B>
inline void weighted_row(const WeightedRows& rows, int64_t e, int64_t end, const Tile& t,
                         int32_t* out) {
  int64_t c = t.col_begin;
  if constexpr (B == 8) {
    for (; c + 64 <= t.col_end; c += 64, out += 64)
      weighted_one_head<4, false>(rows, e, end, c, 16, out);
    for (; c + 16 <= t.col_end; c += 16, out += 16)
      weighted_one_head<1, false>(rows, e, end, c, 16, out);
    if (c < t.col_end) weighted_one_head<1, true>(rows, e, end, c, t.col_end - c, out);
  } else {
    constexpr int64_t kColumns = 256 / B;
    for (; c + kColumns <= t.col_end; c += kColumns, out += kColumns)
      weighted_fields<B, false>(rows, e, end, c * B / 8, kColumns, out);
    if (c < t.col_end) weighted_fields<B, true>(rows, e, end, c * B / 8, t.col_end - c, out);
  }
}

template <int B>
void weighted_tile_in(const SpmmArgs& a, const Tile& t) {
  const WeightedRows rows(a);
  if (a.heads == 1) {
    for (int64_t row = t.row_begin; row < t.row_end; ++row)
      weighted_row<B>(rows, a.indptr[row], a.indptr[row + 1], t,
                      t.out + (row - t.row_begin) * t.stride);
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
        weighted_heads<B>(rows, a.indptr[row], a.indptr[row + 1], c, n, c / width,
                          head_of[(c - c0) / kWeightedColumns], out + (c - c0));
      }
    }
  }
}

inline void spmm_weighted_tile(Avx2, const SpmmArgs& a, const Tile& t) {
  switch (a.bits) {
    case 2:
      return weighted_tile_in<2>(a, t);
    case 4:
      return weighted_tile_in<4>(a, t);
    default:
      return weighted_tile_in<8>(a, t);
  }
}

}  // namespace
}  // namespace nodebits
