// The scan of float features, sixteen at a time.
#pragma once

#include <immintrin.h>

#include "families/scan.h"
#include "isa/avx512/quantize.h"

namespace nodebits {
namespace {

// Appends the columns and the bits of the values of one row that are not zero; returns how many, or
// -1 when they do not fit. The largest magnitude comes out as its bits, whose order is that of the
// floats, with NaN above infinity.
inline int64_t scan_row(Avx512, const float* x, int64_t n, int64_t room, int32_t* cols,
                        float* values, uint32_t* largest, uint32_t* signs) {
  int64_t count = 0;
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512(), any = _mm512_setzero_si512();
  __m512i column = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int64_t c = 0; c < n; c += 16) {
    const __mmask16 inside = n - c >= 16 ? 0xffff : static_cast<__mmask16>((1u << (n - c)) - 1);
    // A few rows ahead: the work between two rows is more than hardware prefetchers wait.
    __builtin_prefetch(x + c + 1024);
    const __m512i v = _mm512_maskz_loadu_epi32(inside, x + c);
    const __mmask16 hit = _mm512_test_epi32_mask(v, magnitude);
    if (hit != 0) {
      most = _mm512_max_epu32(most, _mm512_and_si512(v, magnitude));
      any = _mm512_mask_or_epi32(any, hit, any, v);
      const int found = __builtin_popcount(hit);
      if (count >= 0 && count + found <= room) {
        // Compressed in a register: compressing to memory takes a hundred cycles on some machines.
        const __mmask16 front = static_cast<__mmask16>((1u << found) - 1);
        _mm512_mask_storeu_epi32(cols + count, front, _mm512_maskz_compress_epi32(hit, column));
        _mm512_mask_storeu_epi32(values + count, front, _mm512_maskz_compress_epi32(hit, v));
        count += found;
      } else {
        count = -1;
      }
    }
    column = _mm512_add_epi32(column, _mm512_set1_epi32(16));
  }
  *largest = _mm512_reduce_max_epu32(most);
  *signs = static_cast<uint32_t>(_mm512_reduce_or_epi32(any)) >> 31;
  return count;
}

// The largest magnitude and the signs alone, as of scan_row.
inline void scan_extent(Avx512, const float* x, int64_t n, uint32_t* largest, uint32_t* signs) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512(), any = _mm512_setzero_si512();
  by_sixteen(n, false, [&](int64_t j, __mmask16 lanes, __mmask16) {
    __builtin_prefetch(x + j + 1024);  // as in scan_row
    const __m512i v = _mm512_maskz_loadu_epi32(lanes, x + j);
    most = _mm512_max_epu32(most, _mm512_and_si512(v, magnitude));
    any = _mm512_mask_or_epi32(any, _mm512_test_epi32_mask(v, magnitude), any, v);
  });
  *largest = _mm512_reduce_max_epu32(most);
  *signs = static_cast<uint32_t>(_mm512_reduce_or_epi32(any)) >> 31;
}

}  // namespace
}  // namespace nodebits
