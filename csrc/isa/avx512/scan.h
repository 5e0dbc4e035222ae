// The scan of float features, sixteen at a time.
#pragma once

#include <immintrin.h>

#include "families/scan.h"
#include "isa/avx512/quantize.h"

namespace nodebits {
namespace {

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

// Appends the columns and the bits of the values of one row that are not zero; returns how many, or
// -1 when they do not fit. The largest magnitude comes out as its bits, whose order is that of the
// floats, with NaN above infinity.
//
// A branch on whether some columns hold something would be foreseen wrongly all the time. So 64
// columns give a word of bits, of which the first four are written down whatever they are, and
// places that are none are written over.
inline int64_t scan_row(Avx512 isa, const float* x, int64_t n, int64_t room, int32_t* cols,
                        float* values, uint32_t* largest, uint32_t* signs) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  int64_t count = 0;
  for (int64_t c = 0; c < n; c += 64) {
    const uint64_t inside = n - c >= 64 ? ~0ull : (1ull << (n - c)) - 1;
    __mmask16 some[4];
    for (int v = 0; v < 4; ++v) {
      // A few rows ahead: the work between two rows is more than hardware prefetchers wait.
      __builtin_prefetch(x + c + 1024 + 16 * v);
      const __mmask16 lanes = static_cast<__mmask16>(inside >> (16 * v));
      some[v] = _mm512_test_epi32_mask(_mm512_maskz_loadu_epi32(lanes, x + c + 16 * v), magnitude);
    }
    uint64_t hit =
        _mm512_kunpackd(_mm512_kunpackw(some[3], some[2]), _mm512_kunpackw(some[1], some[0]));
    const int64_t found = __builtin_popcountll(hit);
    if (count + found > room) {
      scan_extent(isa, x, n, largest, signs);
      return -1;
    }
    int32_t* to = cols + count;
    if (found <= 4 && count + 4 <= room) {
      for (int k = 0; k < 4; ++k, hit &= hit - 1) {
        uint64_t bit = _tzcnt_u64(hit);
        asm("" : "+r"(bit));  // gcc would gather the four in a vector, which takes longer
        to[k] = static_cast<int32_t>(c) + static_cast<int32_t>(bit);
      }
    } else {
      // Compressed in a register: compressing to memory takes a hundred cycles on some machines.
      __m512i column = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(c)), lane);
      for (int v = 0; v < 4; ++v) {
        const int n16 = __builtin_popcount(some[v]);
        const __mmask16 front = static_cast<__mmask16>((1u << n16) - 1);
        _mm512_mask_storeu_epi32(to, front, _mm512_maskz_compress_epi32(some[v], column));
        to += n16;
        column = _mm512_add_epi32(column, _mm512_set1_epi32(16));
      }
    }
    count += found;
  }
  __m512i most = _mm512_setzero_si512(), any = _mm512_setzero_si512();
  by_sixteen(count, false, [&](int64_t k, __mmask16 lanes, __mmask16) {
    const __m512i from = _mm512_maskz_loadu_epi32(lanes, cols + k);
    const __m512i v = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, from, x, 4);
    _mm512_mask_storeu_epi32(values + k, lanes, v);
    most = _mm512_max_epu32(most, _mm512_and_si512(v, magnitude));
    any = _mm512_or_si512(any, v);
  });
  *largest = _mm512_reduce_max_epu32(most);
  *signs = static_cast<uint32_t>(_mm512_reduce_or_epi32(any)) >> 31;
  return count;
}

// As in families/scan.h, in one pass.
inline RowCodes scanned_codes(Avx512, const float* values, int64_t n, float scale, float qmax,
                              uint8_t* row) {
  const __m512 by = _mm512_set1_ps(scale), top = _mm512_set1_ps(qmax);
  __m512i sum = _mm512_setzero_si512(), differ = sum, first = sum;
  by_sixteen(n, false, [&](int64_t k, __mmask16 lanes, __mmask16) {
    const __m512 v = _mm512_div_ps(_mm512_maskz_loadu_ps(lanes, values + k), by);
    // The comparisons of rounded_code: NaN becomes code 0.
    const __m512 cut = _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), top);
    const __m512i code = _mm512_maskz_cvtps_epi32(lanes, cut);
    _mm_mask_storeu_epi8(row + k, lanes, _mm512_cvtepi32_epi8(code));
    if (k == 0) first = _mm512_broadcastd_epi32(_mm512_castsi512_si128(code));
    sum = _mm512_add_epi32(sum, code);
    differ = _mm512_or_si512(differ, _mm512_maskz_xor_epi32(lanes, code, first));
  });
  return {_mm512_reduce_add_epi32(sum), _mm512_test_epi32_mask(differ, differ) != 0};
}

}  // namespace
}  // namespace nodebits
