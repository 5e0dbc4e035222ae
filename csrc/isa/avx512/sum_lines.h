// Sums of neighbours whose codes are lines in them: from packed rows to packed rows in registers.
// Sixty-four columns lie in one vector of bytes, field p of every byte of a row in the pth part of
// it. One multiplication with a bit matrix cuts the fields out.
#pragma once

#include <immintrin.h>

#include "contract/kernels.h"
#include "families/finish.h"
#include "families/spmm.h"
#include "families/sum_lines.h"
#include "isa/avx512/finish.h"

namespace nodebits {
namespace {

// The bytes of 64 fields, as often as a byte has fields.
template <int B, bool kTail>
inline __m512i repeated_block(const uint8_t* p, int bytes) {
  if constexpr (B == 4) {
    const __m256i v =
        kTail ? _mm256_maskz_loadu_epi8(static_cast<__mmask32>((uint64_t{1} << bytes) - 1), p)
              : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_broadcast_i64x4(v);
  } else if constexpr (B == 2) {
    const __m128i v = kTail ? _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << bytes) - 1), p)
                            : _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_broadcast_i32x4(v);
  } else {
    static_assert(B == 1);
    const __m128i v = kTail ? _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << bytes) - 1), p)
                            : _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm512_broadcastq_epi64(v);
  }
}

// Field p of a byte moved to its lowest bits: row 7 - i of the matrix picks bit i of the result.
template <int B>
constexpr uint64_t field_matrix(int p) {
  uint64_t matrix = 0;
  for (int i = 0; i < B; ++i) matrix |= uint64_t{1} << (B * p + i) << (8 * (7 - i));
  return matrix;
}

template <int B>
struct FieldTables {
  alignas(64) uint64_t matrices[8];  // of every eight bytes
  alignas(64) uint8_t order[64];     // where a column lies

  constexpr FieldTables() : matrices{}, order{} {
    constexpr int kFields = 8 / B;
    for (int i = 0; i < 8; ++i) matrices[i] = field_matrix<B>(i * kFields / 8);
    for (int c = 0; c < 64; ++c)
      order[c] = static_cast<uint8_t>(c % kFields * (64 / kFields) + c / kFields);
  }
};

template <int B, bool kWhole, int kVectors>
inline void sum_line(const SumLineArgs& a, Rows& rows, const uint8_t* own, int64_t e, int64_t end,
                     int64_t c, int64_t n, uint8_t* to) {
  using Row = Avx512Row<kWhole, kVectors>;
  static constexpr FieldTables<B> kTables;
  const __m512i matrices = _mm512_load_si512(kTables.matrices);
  const int64_t at = c / 8 * B;
  const int bytes = static_cast<int>((n * B + 7) / 8);
  const auto codes = [&](const uint8_t* p) __attribute__((always_inline)) {
    return _mm512_gf2p8affine_epi64_epi8(repeated_block<B, !kWhole>(p, bytes), matrices, 0);
  };
  __m512i sum = own != nullptr ? codes(own + at) : _mm512_setzero_si512();
  for (; e < end; ++e) sum = _mm512_add_epi8(sum, codes(rows.row(e) + at));
  alignas(64) uint8_t sums[64];
  _mm512_store_si512(sums, _mm512_permutexvar_epi8(_mm512_load_si512(kTables.order), sum));
  __m512 y[4];
  unrolled<kVectors>([&]<int K>() __attribute__((always_inline)) {
    y[K] = Row::line(Row::codes(sums + 16 * K), Row::load(a.line.slope + c + 16 * K),
                     Row::load(a.line.start + c + 16 * K));
  });
  Row::write_line(y, a.line.least + c, n, a.out_bits, to + c / 8 * a.out_bits);
  look_up_codes<B>(a, sums, own, c, n, to);
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
    by_row_blocks<16>(s.num_cols, [&]<bool kWhole, int kVectors>(int64_t c, int64_t n) {
      sum_line<B, kWhole, kVectors>(a, rows, own, first, last, c, n, to);
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

constexpr auto sum_lines_of(Avx512) -> decltype(Kernels::sum_lines) { return sum_lines; }

}  // namespace
}  // namespace nodebits
