// Sums to memory.
#pragma once

#include <immintrin.h>

#include "families/segments.h"
#include "families/spmm.h"
#include "isa/avx512/traits.h"

namespace nodebits {
namespace {

// A call of memcpy takes as long as the few sums that it copies here.
inline void copy_sums(Avx512, const int32_t* sums, int64_t n, int32_t* out) {
  for (int64_t j = 0; j < n; j += 16) {
    const __mmask16 lanes = static_cast<__mmask16>(n - j >= 16 ? 0xffff : (1u << (n - j)) - 1);
    _mm512_mask_storeu_epi32(out + j, lanes, _mm512_loadu_si512(sums + j));
  }
}

// out[c] = the accumulator's element at[c].
inline void read_sums(Avx512, const uint8_t* acc, bool wide, const int32_t* at, int64_t columns,
                      int32_t* out) {
  const __m512i low = _mm512_set1_epi32(wide ? -1 : 0xffff);
  for (int64_t c = 0; c < columns; c += 16) {
    const __mmask16 mask =
        static_cast<__mmask16>(columns - c < 16 ? (1u << (columns - c)) - 1 : 0xffffu);
    const __m512i index = _mm512_maskz_loadu_epi32(mask, at + c);
    const __m512i sum = wide ? _mm512_i32gather_epi32(index, acc, 4)
                             : _mm512_and_si512(low, _mm512_i32gather_epi32(index, acc, 2));
    _mm512_mask_storeu_epi32(out + c, mask, sum);
  }
}

}  // namespace
}  // namespace nodebits
