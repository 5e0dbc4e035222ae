// Packing by pext, unpacking 64 codes at a time.
#pragma once

#include <immintrin.h>

#include "families/pack.h"
#include "isa/avx512/traits.h"

namespace nodebits {
namespace {

template <int B>
inline uint64_t squeeze8(Avx512, uint64_t x) {
  if constexpr (B == 8) return x;
  // Slow only where there is no AVX-512.
  return _pext_u64(x, 0x0101010101010101ull * ((1u << B) - 1));
}

// The bytes of 64 codes. A masked load waits for the next line of the cache where the bytes it
// leaves out lie there, so a half or a quarter of a register is read as such.
template <int B>
inline __m512i bytes_of_64(const uint8_t* packed) {
  if constexpr (B == 4)
    return _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(packed)));
  if constexpr (B == 2)
    return _mm512_zextsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  if constexpr (B == 1) return _mm512_zextsi128_si512(_mm_loadu_si64(packed));
  if constexpr (B == 3) return _mm512_zextsi256_si512(_mm256_maskz_loadu_epi8(0xffffff, packed));
  return _mm512_maskz_loadu_epi8((1ull << (8 * B)) - 1, packed);
}

template <int B>
inline int64_t unpack_eights(Avx512, const uint8_t* packed, int64_t groups, uint8_t* out) {
  int64_t g = 0;
  // Sixty-four codes are 8 * B bytes: vpermb gives each 64-bit lane its own B bytes, vpmultishiftqb
  // cuts the lane at bit offsets 0, B, .. 7B.
  if constexpr (B < 8) {
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_mullo_epi64(_mm512_mullo_epi64(lane, _mm512_set1_epi64(B)),
                                             _mm512_set1_epi64(0x0101010101010101ll));
    const __m512i bytes = _mm512_add_epi8(first, _mm512_set1_epi64(0x0706050403020100ll));
    const __m512i cuts = _mm512_set1_epi64(B * 0x0706050403020100ll);
    const __m512i mask = _mm512_set1_epi8((1 << B) - 1);
    for (; g + 8 <= groups; g += 8) {
      const __m512i word = _mm512_permutexvar_epi8(bytes, bytes_of_64<B>(packed + B * g));
      _mm512_storeu_si512(out + 8 * g,
                          _mm512_and_si512(_mm512_multishift_epi64_epi8(cuts, word), mask));
    }
  }
  return g;
}

}  // namespace
}  // namespace nodebits
