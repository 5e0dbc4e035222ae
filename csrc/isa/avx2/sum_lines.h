// Sums of neighbours whose codes are lines in them: from packed rows to packed rows in registers.
// Thirty-two columns lie in one vector of bytes, field p of every byte of a row in the pth part of
// it.
#pragma once

#include <immintrin.h>

#include "contract/kernels.h"
#include "families/finish.h"
#include "families/spmm.h"
#include "families/sum_lines.h"
#include "isa/avx2/rows.h"

namespace nodebits {
namespace {

// Codes of 32 columns: the bytes of their fields as often as a byte has fields, every time shifted
// by one field more. What crosses bytes is cut off.
template <int B, bool kTail>
inline __m256i codes_by_field(const uint8_t* p, int bytes, const uint8_t* table_end) {
  constexpr int kBytes = 4 * B;
  uint8_t tail[kBytes];
  if (kTail && table_end - p < kBytes) {
    __builtin_memset(tail, 0, kBytes);
    __builtin_memcpy(tail, p, static_cast<size_t>(bytes));
    p = tail;
  }
  __m256i v;
  if constexpr (B == 4) {
    v = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    v = _mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
  } else if constexpr (B == 2) {
    v = _mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    v = _mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 2, 4, 6));
  } else {
    static_assert(B == 1);
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    v = _mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  return _mm256_and_si256(v, _mm256_set1_epi8((1 << B) - 1));
}

// The columns in order.
template <int B>
inline __m256i columns_in_order(__m256i v) {
  if constexpr (B == 4) {
    v = _mm256_permute4x64_epi64(v, 0xd8);
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                      0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15)));
  }
  const __m256i square = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  if constexpr (B == 2) {
    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    return _mm256_shuffle_epi8(v, square);
  } else {
    v = _mm256_shuffle_epi8(v, square);
    return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
}

// Columns [c, c + n) of a row, kBlocks times 32.
template <int B, bool kWhole, int kVectors, int kBlocks>
inline void sum_line(const SumLineArgs& a, Rows& rows, const uint8_t* own, int64_t e, int64_t end,
                     int64_t c, int64_t n, uint8_t* to) {
  using Row = Avx2Row<kWhole, kVectors>;
  const int64_t at = c / 8 * B;
  const int bytes = static_cast<int>((n * B + 7) / 8);
  __m256i sum[kBlocks];
  unrolled<kBlocks>([&]<int K>() __attribute__((always_inline)) {
    sum[K] = own == nullptr
                 ? _mm256_setzero_si256()
                 : codes_by_field<B, !kWhole>(own + at + 4 * B * K, bytes, a.own + a.own_bytes);
  });
  for (; e < end; ++e) {
    const uint8_t* p = rows.row(e) + at;
    unrolled<kBlocks>([&]<int K>() __attribute__((always_inline)) {
      sum[K] =
          _mm256_add_epi8(sum[K], codes_by_field<B, !kWhole>(p + 4 * B * K, bytes, rows.table_end));
    });
  }
  unrolled<kBlocks>([&]<int K>() __attribute__((always_inline)) {
    const int64_t first = c + 32 * K;
    alignas(32) uint8_t sums[32];
    _mm256_store_si256(reinterpret_cast<__m256i*>(sums), columns_in_order<B>(sum[K]));
    __m256 y[4];
    unrolled<kVectors>([&]<int J>() __attribute__((always_inline)) {
      y[J] = Row::line(Row::codes(sums + 8 * J), Row::load(a.line.slope + first + 8 * J),
                       Row::load(a.line.start + first + 8 * J));
    });
    Row::write_line(y, a.line.least + first, n, a.out_bits, to + first / 8 * a.out_bits);
    look_up_codes<B>(a, sums, own, first, n, to);
  });
}

template <int B>
inline int64_t sum_lines_as(const SumLineArgs& a, int64_t begin, int64_t end) {
  const SpmmArgs& s = a.sum;
  const int64_t stride = packed_row_bytes(s.num_cols, B);
  const int64_t out_stride = packed_row_bytes(s.num_cols, a.out_bits);
  const int64_t most = most_line_edges(B, a.own != nullptr);
  Rows rows{s.indices,  s.packed, s.packed + s.table_bytes,      stride, s.num_edges - 1,
            stride - 1, 0,        s.table_bytes > kPrefetchBytes};
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = s.indptr[row], last = s.indptr[row + 1];
    if (last - first > most) return row;
    const uint8_t* own = a.own != nullptr ? a.own + row * stride : nullptr;
    uint8_t* to = a.packed + row * out_stride;
    int64_t c = 0;
    for (; c + 64 <= s.num_cols; c += 64)
      sum_line<B, true, 4, 2>(a, rows, own, first, last, c, 32, to);
    by_row_blocks<8>(s.num_cols - c, [&]<bool kWhole, int kVectors>(int64_t j, int64_t n) {
      sum_line<B, kWhole, kVectors, 1>(a, rows, own, first, last, c + j, n, to);
    });
  }
  return end;
}

inline int64_t sum_lines(const SumLineArgs& a, int64_t begin, int64_t end) {
  switch (a.sum.bits) {
    case 1:
      return sum_lines_as<1>(a, begin, end);
    case 2:
      return sum_lines_as<2>(a, begin, end);
    default:
      return sum_lines_as<4>(a, begin, end);
  }
}

constexpr auto sum_lines_of(Avx2) -> decltype(Kernels::sum_lines) { return sum_lines; }

}  // namespace
}  // namespace nodebits
