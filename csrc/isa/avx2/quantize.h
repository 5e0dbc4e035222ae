// Thirty-two floats to packed codes at a time.
#pragma once

#include <immintrin.h>

#include "families/finish.h"
#include "isa/avx2/pack.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

// Which of the lanes of four vectors exist, of n columns.
struct Avx2Lanes {
  __m256i of[4];

  explicit Avx2Lanes(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int k = 0; k < 4; ++k)
      of[k] = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n) - 8 * k), lane);
  }
};

// Codes before they are cut off; half to even. NaN, and what is below int32, give the least
// integer.
inline __m256i code_of(__m256 x, __m256 scale, __m256 zero_point) {
  const __m256 v = _mm256_add_ps(_mm256_div_ps(x, scale), zero_point);
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(0x1p30f), v));
}

// Thirty-two codes as bytes in order; the instructions cut off at 0 and 255.
inline __m256i joined(const __m256i* codes, __m256i top) {
  const __m256i low = _mm256_packs_epi32(codes[0], codes[1]);
  const __m256i high = _mm256_packs_epi32(codes[2], codes[3]);
  const __m256i bytes = _mm256_min_epu8(_mm256_packus_epi16(low, high), top);
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// Lanes that do not exist give 0.
template <bool kWhole, int kVectors, bool kPerColumn>
inline __m256i codes_of_row(const __m256* y, const Avx2Lanes& lanes, float factor,
                            const float* scale, const float* zero_point, float qmax) {
  const __m256 by = _mm256_set1_ps(factor);
  const __m256 s0 = _mm256_set1_ps(*scale), z0 = _mm256_set1_ps(*zero_point);
  __m256i codes[4];
  for (int k = kVectors; k < 4; ++k) codes[k] = _mm256_setzero_si256();
  unrolled<kVectors>([&]<int K>() {
    __m256 s = s0, z = z0;
    if constexpr (kPerColumn) {
      s = kWhole ? _mm256_loadu_ps(scale + 8 * K) : _mm256_maskload_ps(scale + 8 * K, lanes.of[K]);
      z = kWhole ? _mm256_loadu_ps(zero_point + 8 * K)
                 : _mm256_maskload_ps(zero_point + 8 * K, lanes.of[K]);
    }
    codes[K] = code_of(_mm256_mul_ps(y[K], by), s, z);
    if constexpr (!kWhole) codes[K] = _mm256_and_si256(codes[K], lanes.of[K]);
  });
  return joined(codes, _mm256_set1_epi8(static_cast<char>(static_cast<int>(qmax))));
}

// 32 bytes to rows of kBits: 1, 2, 4 or 8.
template <int kBits>
inline void write_codes(__m256i codes, uint8_t* to) {
  if constexpr (kBits == 8) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes);
  } else if constexpr (kBits == 4) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x1001));
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(pairs, pairs), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(bytes));
  } else if constexpr (kBits == 2) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x0401));
    const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00100001));
    const __m256i low = _mm256_shuffle_epi8(fours, _mm256_set1_epi32(0x0c080400));
    const uint64_t first = static_cast<uint32_t>(_mm256_extract_epi32(low, 0));
    const uint64_t second = static_cast<uint32_t>(_mm256_extract_epi32(low, 4));
    const uint64_t both = first | second << 32;
    __builtin_memcpy(to, &both, 8);
  } else {
    const uint32_t bits = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_slli_epi16(codes, 7)));
    __builtin_memcpy(to, &bits, 4);
  }
}

// Thirty-two codes as fields of `bits`; the usual widths without a call.
__attribute__((noinline)) inline void write_other_codes(__m256i codes, int bits, uint8_t* to) {
  alignas(32) uint8_t bytes[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), codes);
  with_bits(bits, [&]<int B>() { pack_codes<B>(Avx2{}, bytes, 32, to); });
}

__attribute__((always_inline)) inline void write_whole_row(__m256i codes, int bits, uint8_t* to) {
  if (bits == 4) return write_codes<4>(codes, to);
  if (bits == 8) return write_codes<8>(codes, to);
  if (bits == 2) return write_codes<2>(codes, to);
  if (bits == 1) return write_codes<1>(codes, to);
  write_other_codes(codes, bits, to);
}

// The first n of 32 codes, shifted left by `shift` (8 bits only).
template <bool kWhole>
inline void write_row(__m256i codes, int64_t n, int bits, int shift, uint8_t* to) {
  if (shift != 0) codes = _mm256_sll_epi16(codes, _mm_cvtsi32_si128(shift));
  if constexpr (kWhole) return write_whole_row(codes, bits, to);
  uint8_t row[32];
  write_whole_row(codes, bits, row);
  __builtin_memcpy(to, row, static_cast<size_t>((n * bits + 7) / 8));
}

template <bool kPerColumn>
inline void quantize_packed(Avx2, const float* x, int64_t n, float factor, const float* scale,
                            const float* zero_point, const float* /*inverse*/, float qmax, int bits,
                            int shift, uint8_t* to) {
  by_row_blocks<8>(n, [&]<bool kWhole, int kVectors>(int64_t c, int64_t count) {
    const int64_t at = kPerColumn ? c : 0;
    const Avx2Lanes lanes(count);
    __m256 y[4];
    unrolled<kVectors>([&]<int K>() {
      const float* from = x + c + 8 * K;
      y[K] = kWhole ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, lanes.of[K]);
    });
    write_row<kWhole>(codes_of_row<kWhole, kVectors, kPerColumn>(y, lanes, factor, scale + at,
                                                                 zero_point + at, qmax),
                      count, bits, shift, to + c / 8 * bits);
  });
}

}  // namespace
}  // namespace nodebits
