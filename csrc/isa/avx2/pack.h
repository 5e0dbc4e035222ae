// Thirty-two codes at a time from fields of 1, 2 and 4 bits.
#pragma once

#include <immintrin.h>

#include "families/pack.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

template <int B>
inline __m256i thirty_two_codes(const uint8_t* packed) {
  static_assert(B == 1 || B == 2 || B == 4);
  if constexpr (B == 4) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
    const __m256i pairs = _mm256_cvtepu8_epi16(bytes);
    return _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)),
                            _mm256_set1_epi8(0x0f));
  } else if constexpr (B == 2) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed));
    __m256i v = _mm256_cvtepu8_epi32(bytes);
    v = _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi32(v, 12)),
                         _mm256_set1_epi32(0x000f000f));
    return _mm256_and_si256(_mm256_or_si256(v, _mm256_slli_epi32(v, 6)), _mm256_set1_epi8(3));
  } else {
    int32_t word;
    __builtin_memcpy(&word, packed, 4);
    const __m256i byte_of =
        _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit_of = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ull));
    const __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32(word), byte_of);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit_of), bit_of);
    return _mm256_and_si256(set, _mm256_set1_epi8(1));
  }
}

template <int B>
inline int64_t unpack_eights(Avx2, const uint8_t* packed, int64_t groups, uint8_t* out) {
  int64_t g = 0;
  if constexpr (B == 1 || B == 2 || B == 4) {
    for (; g + 4 <= groups; g += 4)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * g),
                          thirty_two_codes<B>(packed + B * g));
  }
  return g;
}

}  // namespace
}  // namespace nodebits
