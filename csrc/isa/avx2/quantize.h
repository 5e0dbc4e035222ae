// Thirty-two floats to packed codes at a time.
#pragma once

#include <immintrin.h>

#include "families/pack.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

// Eight values to codes; as rounded_code, of NaN and of two zeros the second operand is taken.
inline __m256i codes_of_eight(__m256 x, __m256 factor, __m256 scale, __m256 zero_point,
                              __m256 top) {
  const __m256 v = _mm256_add_ps(_mm256_div_ps(_mm256_mul_ps(x, factor), scale), zero_point);
  const __m256 kept = _mm256_min_ps(_mm256_max_ps(v, _mm256_setzero_ps()), top);
  return _mm256_cvtps_epi32(kept);  // half to even
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

template <bool kPerColumn, int kBits>
inline void quantize_rows_of_bits(const float* x, int64_t n, float factor, const float* scale,
                                  const float* zero_point, float qmax, int shift, uint8_t* to) {
  const __m256 by = _mm256_set1_ps(factor), top = _mm256_set1_ps(qmax);
  const __m256 s0 = _mm256_set1_ps(*scale), z0 = _mm256_set1_ps(*zero_point);
  const __m128i by_shift = _mm_cvtsi32_si128(shift);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int64_t c = 0; c < n; c += 32) {
    const int64_t count = n - c < 32 ? n - c : 32;
    __m256i found[4];
    for (int v = 0; v < 4; ++v) {
      const float *from = x + c + 8 * v, *s = scale + c + 8 * v, *z = zero_point + c + 8 * v;
      const int64_t left = count - 8 * v;
      if (left >= 8) {
        found[v] = codes_of_eight(_mm256_loadu_ps(from), by, kPerColumn ? _mm256_loadu_ps(s) : s0,
                                  kPerColumn ? _mm256_loadu_ps(z) : z0, top);
        continue;
      }
      // Lanes that do not exist hold code 0.
      found[v] = _mm256_setzero_si256();
      if (left <= 0) continue;
      const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), lane);
      found[v] = codes_of_eight(_mm256_maskload_ps(from, inside), by,
                                kPerColumn ? _mm256_maskload_ps(s, inside) : s0,
                                kPerColumn ? _mm256_maskload_ps(z, inside) : z0, top);
      found[v] = _mm256_and_si256(found[v], inside);
    }
    const __m256i words0 = _mm256_packs_epi32(found[0], found[1]);
    const __m256i words1 = _mm256_packs_epi32(found[2], found[3]);
    __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words0, words1),
                                                _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if constexpr (kBits == 8) codes = _mm256_sll_epi16(codes, by_shift);
    uint8_t* at = to + c / 8 * kBits;
    if (count == 32) {
      write_codes<kBits>(codes, at);
      continue;
    }
    uint8_t packed[32];
    write_codes<kBits>(codes, packed);
    const int64_t bytes = (count * kBits + 7) / 8;
    if (bytes == 8) {  // sixteen columns of four bits, as small models have them
      __builtin_memcpy(at, packed, 8);
    } else {
      __builtin_memcpy(at, packed, static_cast<size_t>(bytes));
    }
  }
}

template <bool kPerColumn>
inline void quantize_packed(Avx2 isa, const float* x, int64_t n, float factor, const float* scale,
                            const float* zero_point, const float* /*inverse*/, float qmax, int bits,
                            int shift, uint8_t* to) {
  const auto rows = [&]<int B>(uint8_t* sink, const float* from, int64_t count, int64_t c) {
    quantize_rows_of_bits<kPerColumn, B>(from, count, factor, scale + (kPerColumn ? c : 0),
                                         zero_point + (kPerColumn ? c : 0), qmax,
                                         bits == 8 ? shift : 0, sink);
  };
  switch (bits) {
    case 1:
      return rows.template operator()<1>(to, x, n, 0);
    case 2:
      return rows.template operator()<2>(to, x, n, 0);
    case 4:
      return rows.template operator()<4>(to, x, n, 0);
    case 8:
      return rows.template operator()<8>(to, x, n, 0);
    default:
      break;
  }
  constexpr int64_t kCodes = 512;  // at a time; a multiple of 8
  uint8_t codes[kCodes];
  for (int64_t c = 0; c < n; c += kCodes) {
    const int64_t count = n - c < kCodes ? n - c : kCodes;
    rows.template operator()<8>(codes, x + c, count, c);
    with_bits(bits, [&]<int B>() { pack_codes<B, true>(isa, codes, count, to + c / 8 * B); });
  }
}

}  // namespace
}  // namespace nodebits
