// Neighbour sums with one u8 weight per edge and head, four edges at a time: the bytes of four rows
// are transposed so that a 32-bit lane holds the four codes of one column, and vpdpbusd multiplies
// it by that column's four weights. Rows have 4 or 8 bits.
//
// After the transposition, accumulator (i, plane), 128-bit lane j, element k belongs to byte 16j +
// 4i + k of the block.
#pragma once

#include <immintrin.h>

#include "contract/products.h"
#include "families/spmm.h"
#include "isa/avx512/traits.h"

namespace nodebits {
namespace {

constexpr uint8_t weighted_bits(Avx512, int bits) { return bits == 0 ? 0 : bits <= 4 ? 4 : 8; }
constexpr int64_t kWeightedHeads = 16;  // heads whose weights fit one register

// Four weights of each of `heads` heads, as one 32-bit lane per head. `edges` of the four exist.
inline __m512i weights_of_four(const uint8_t* weight, int64_t stride, int64_t heads, int edges) {
  if (stride == 1) {
    uint32_t w = 0;
    if (edges == 4) {
      __builtin_memcpy(&w, weight, 4);
    } else {
      for (int i = 0; i < edges; ++i) w |= static_cast<uint32_t>(weight[i]) << (8 * i);
    }
    return _mm512_set1_epi32(static_cast<int>(w));
  }
  const __mmask16 mask = static_cast<__mmask16>((1u << heads) - 1);
  const __m128i a = _mm_maskz_loadu_epi8(mask, weight);
  const __m128i b = _mm_maskz_loadu_epi8(edges > 1 ? mask : 0, weight + stride);
  const __m128i c = _mm_maskz_loadu_epi8(edges > 2 ? mask : 0, weight + 2 * stride);
  const __m128i d = _mm_maskz_loadu_epi8(edges > 3 ? mask : 0, weight + 3 * stride);
  const __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
  __m512i w = _mm512_castsi128_si512(_mm_unpacklo_epi16(ab, cd));
  w = _mm512_inserti32x4(w, _mm_unpackhi_epi16(ab, cd), 1);
  const __m128i ab2 = _mm_unpackhi_epi8(a, b), cd2 = _mm_unpackhi_epi8(c, d);
  w = _mm512_inserti32x4(w, _mm_unpacklo_epi16(ab2, cd2), 2);
  return _mm512_inserti32x4(w, _mm_unpackhi_epi16(ab2, cd2), 3);
}

// Lane j of the four vectors, side by side, goes to out + j * lane_stride.
inline void store_lanes(__m512i a, __m512i b, __m512i c, __m512i d, int32_t* out,
                        int64_t lane_stride) {
  const __m512i ab_lo = _mm512_shuffle_i32x4(a, b, 0x44), ab_hi = _mm512_shuffle_i32x4(a, b, 0xee);
  const __m512i cd_lo = _mm512_shuffle_i32x4(c, d, 0x44), cd_hi = _mm512_shuffle_i32x4(c, d, 0xee);
  _mm512_storeu_si512(out, _mm512_shuffle_i32x4(ab_lo, cd_lo, 0x88));
  _mm512_storeu_si512(out + lane_stride, _mm512_shuffle_i32x4(ab_lo, cd_lo, 0xdd));
  _mm512_storeu_si512(out + 2 * lane_stride, _mm512_shuffle_i32x4(ab_hi, cd_hi, 0x88));
  _mm512_storeu_si512(out + 3 * lane_stride, _mm512_shuffle_i32x4(ab_hi, cd_hi, 0xdd));
}

// Sums of one row and one block of up to 64 bytes of columns, whose heads fit one register of
// weights. head_of[4 * plane + i] names the head of every lane of accumulator (i, plane).
template <int B, bool kOneHead>
struct WeightedSums {
  static constexpr int kPlanes = 8 / B;
  __m512i acc[kPlanes][4], head[kPlanes][4], weight_sum;

  void begin(const __m512i* head_of) {
    weight_sum = _mm512_setzero_si512();
    for (int p = 0; p < kPlanes; ++p) {
      for (int i = 0; i < 4; ++i) {
        acc[p][i] = _mm512_setzero_si512();
        head[p][i] = _mm512_loadu_si512(head_of + 4 * p + i);
      }
    }
  }

  // Four rows and their weights, see weights_of_four.
  void add(const __m512i* r, __m512i w) {
    const __m512i nibble = _mm512_set1_epi8(0x0f);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i ab0 = _mm512_unpacklo_epi8(r[0], r[1]), ab1 = _mm512_unpackhi_epi8(r[0], r[1]);
    const __m512i cd0 = _mm512_unpacklo_epi8(r[2], r[3]), cd1 = _mm512_unpackhi_epi8(r[2], r[3]);
    const __m512i z[4] = {_mm512_unpacklo_epi16(ab0, cd0), _mm512_unpackhi_epi16(ab0, cd0),
                          _mm512_unpacklo_epi16(ab1, cd1), _mm512_unpackhi_epi16(ab1, cd1)};
    if constexpr (B == 8) {
      // The second factor of vpdpbusd is signed: codes enter less 128, and 128 * sum(w) is added at
      // the end.
      weight_sum = _mm512_dpbusd_epi32(weight_sum, w, _mm512_set1_epi8(1));
    }
    for (int i = 0; i < 4; ++i) {
      const __m512i w0 = kOneHead ? w : _mm512_permutexvar_epi32(head[0][i], w);
      if constexpr (B == 8) {
        add_products(acc[0][i], w0, _mm512_xor_si512(z[i], sign));
      } else {
        const __m512i w1 = kOneHead ? w : _mm512_permutexvar_epi32(head[kPlanes - 1][i], w);
        add_products(acc[0][i], w0, _mm512_and_si512(z[i], nibble));
        add_products(acc[kPlanes - 1][i], w1, _mm512_and_si512(_mm512_srli_epi16(z[i], 4), nibble));
      }
    }
  }

  // In the order of the columns.
  void store(int32_t* out) {
    if constexpr (B == 8) {
      for (int i = 0; i < 4; ++i) {
        const __m512i sum =
            kOneHead ? weight_sum : _mm512_permutexvar_epi32(head[0][i], weight_sum);
        acc[0][i] = _mm512_add_epi32(acc[0][i], _mm512_slli_epi32(sum, 7));
      }
      store_lanes(acc[0][0], acc[0][1], acc[0][2], acc[0][3], out, 16);
    } else {
      __m512i quad[8];  // planes interleaved: lane j of quad[m] is columns 32j + 4m ..
      for (int i = 0; i < 4; ++i) {
        quad[2 * i] = _mm512_unpacklo_epi32(acc[0][i], acc[kPlanes - 1][i]);
        quad[2 * i + 1] = _mm512_unpackhi_epi32(acc[0][i], acc[kPlanes - 1][i]);
      }
      store_lanes(quad[0], quad[1], quad[2], quad[3], out, 32);
      store_lanes(quad[4], quad[5], quad[6], quad[7], out + 16, 32);
    }
  }
};

// kBlocks blocks of bytes of the columns of heads [first_head, first_head + heads); `mask` is of
// the last. Two at once read both lines of a row of bytes on one way over the edges.
template <int B, bool kOneHead, int kBlocks>
inline void weighted_blocks(const SpmmArgs& a, int64_t row, int64_t byte, __mmask64 mask,
                            const __m512i* head_of, int64_t first_head, int64_t heads,
                            int32_t* out) {
  const int64_t stride = packed_row_bytes(a.num_cols, B);
  const uint8_t* base = a.packed + byte;
  WeightedSums<B, kOneHead> sums[kBlocks];
  for (int k = 0; k < kBlocks; ++k) sums[k].begin(head_of + 4 * (8 / B) * k);
  const bool prefetch = a.table_bytes > kPrefetchBytes;
  const int64_t end = a.indptr[row + 1];
  for (int64_t e = a.indptr[row]; e < end; e += 4) {
    const int edges = end - e < 4 ? static_cast<int>(end - e) : 4;
    const uint8_t* from[4];
    for (int j = 0; j < 4; ++j) {
      const int64_t at = j < edges ? e + j : e;  // a missing edge has weight 0
      if (prefetch) {
        const int64_t ahead =
            at + kPrefetchEdges < a.num_edges ? at + kPrefetchEdges : a.num_edges - 1;
        const uint8_t* next = base + static_cast<int64_t>(a.indices[ahead]) * stride;
        for (int k = 0; k < kBlocks; ++k) __builtin_prefetch(next + 64 * k);
      }
      from[j] = base + static_cast<int64_t>(a.indices[at]) * stride;
    }
    const __m512i w = weights_of_four(a.weight + e * a.heads + first_head, a.heads, heads, edges);
    for (int k = 0; k < kBlocks; ++k) {
      const __mmask64 of_block = k + 1 == kBlocks ? mask : ~0ull;
      __m512i r[4];
      for (int j = 0; j < 4; ++j) r[j] = _mm512_maskz_loadu_epi8(of_block, from[j] + 64 * k);
      sums[k].add(r, w);
    }
  }
  for (int k = 0; k < kBlocks; ++k) sums[k].store(out + 64 * (8 / B) * k);
}

// The head, counted from `first`, of every lane of the accumulators of a block from column c0 on.
template <int B>
inline void heads_of_lanes(int64_t c0, int64_t width, int64_t first, int32_t* head_of) {
  constexpr int kPlanes = 8 / B;
  for (int p = 0; p < kPlanes; ++p) {
    for (int i = 0; i < 4; ++i) {
      for (int lane = 0; lane < 16; ++lane) {
        const int64_t column = c0 + (16 * (lane / 4) + 4 * i + lane % 4) * kPlanes + p;
        head_of[(4 * p + i) * 16 + lane] = static_cast<int32_t>((column / width - first) & 15);
      }
    }
  }
}

// Rows [r0, r1) of a tile, kBlocks blocks of columns from `byte` on.
template <int B, int kBlocks>
void weighted_rows(const SpmmArgs& a, const Tile& t, int64_t r0, int64_t r1, int64_t byte) {
  constexpr int kPlanes = 8 / B;
  constexpr int64_t kColumns = 64 * kPlanes;
  const int64_t width = a.num_cols / a.heads;
  const int64_t bytes = packed_row_bytes(t.col_end, B) - byte - 64 * (kBlocks - 1);
  const __mmask64 mask = bytes >= 64 ? ~0ull : (1ull << bytes) - 1;
  const int64_t c0 = byte * kPlanes;
  const int64_t columns = t.col_end - c0 < kBlocks * kColumns ? t.col_end - c0 : kBlocks * kColumns;
  alignas(64) int32_t head_of[kBlocks * kPlanes * 64];
  int32_t sums[kBlocks * kColumns];
  // A block may touch more heads than one register holds: they are taken in groups, and of each
  // pass only the columns of its heads are kept.
  const int64_t last_head = (c0 + columns - 1) / width;
  for (int64_t h = c0 / width; h <= last_head; h += kWeightedHeads) {
    const int64_t heads = last_head + 1 - h < kWeightedHeads ? last_head + 1 - h : kWeightedHeads;
    for (int k = 0; k < kBlocks; ++k)
      heads_of_lanes<B>(c0 + k * kColumns, width, h, head_of + k * kColumns);
    const int64_t from = h * width > c0 ? h * width : c0;
    const int64_t to = (h + heads) * width < c0 + columns ? (h + heads) * width : c0 + columns;
    const bool direct = columns == kBlocks * kColumns && to - from == columns;
    const __m512i* table = reinterpret_cast<const __m512i*>(head_of);
    for (int64_t row = r0; row < r1; ++row) {
      int32_t* out = t.out + (row - t.row_begin) * t.stride;
      int32_t* sink = direct ? out + (c0 - t.col_begin) : sums;
      if (a.heads == 1) {
        weighted_blocks<B, true, kBlocks>(a, row, byte, mask, table, 0, 1, sink);
      } else {
        weighted_blocks<B, false, kBlocks>(a, row, byte, mask, table, h, heads, sink);
      }
      if (!direct)
        __builtin_memcpy(out + (from - t.col_begin), sums + (from - c0),
                         static_cast<size_t>(to - from) * 4);
    }
  }
}

template <int B>
void weighted_tile_as(const SpmmArgs& a, const Tile& t) {
  const int64_t last_byte = packed_row_bytes(t.col_end, B);
  // Blocks outermost within a run of rows: the lane table is built once per block and run, not once
  // per row.
  constexpr int64_t kRun = 256;
  for (int64_t r0 = t.row_begin; r0 < t.row_end; r0 += kRun) {
    const int64_t r1 = t.row_end - r0 < kRun ? t.row_end : r0 + kRun;
    for (int64_t byte = t.col_begin * B / 8; byte < last_byte;) {
      const bool two = B == 8 && last_byte - byte > 64;
      if (two) {
        weighted_rows<B, B == 8 ? 2 : 1>(a, t, r0, r1, byte);
      } else {
        weighted_rows<B, 1>(a, t, r0, r1, byte);
      }
      byte += two ? 128 : 64;
    }
  }
}

inline void spmm_weighted_tile(Avx512, const SpmmArgs& a, const Tile& t) {
  if (a.bits == 4) {
    weighted_tile_as<4>(a, t);
  } else {
    weighted_tile_as<8>(a, t);
  }
}

}  // namespace
}  // namespace nodebits
