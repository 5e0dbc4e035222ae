// The scan of float features, eight at a time.
#pragma once

#include <immintrin.h>

#include "families/scan.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

// Appends the columns and the bits of the values of one row that are not zero; returns how many, or
// -1 when they do not fit. The largest magnitude comes out as its bits, whose order is that of the
// floats, with NaN above infinity.
inline int64_t scan_row(Avx2, const float* x, int64_t n, int64_t room, int32_t* cols, float* values,
                        uint32_t* largest, uint32_t* signs) {
  int64_t count = 0;
  int64_t c = 0;
  uint32_t top = 0, sign = 0;
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), none = _mm256_setzero_si256();
  __m256i most = none, any = none;
  // Bit k of the result: whether lane k is not zero.
  const auto look = [&](__m256i v) {
    const __m256i size = _mm256_and_si256(v, magnitude);
    const __m256i empty = _mm256_cmpeq_epi32(size, none);
    most = _mm256_max_epu32(most, size);
    any = _mm256_or_si256(any, _mm256_andnot_si256(empty, v));
    return ~static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(empty))) & 0xffu;
  };
  const auto keep = [&](uint32_t hit, int64_t start) {
    if (count < 0 || count + __builtin_popcount(hit) > room) {
      count = -1;
      return;
    }
    for (; hit != 0; hit &= hit - 1) {
      const int64_t j = start + __builtin_ctz(hit);
      cols[count] = static_cast<int32_t>(j);
      values[count] = x[j];
      ++count;
    }
  };
  // One branch for 32 values: with few that are not zero most are passed over.
  for (; c + 32 <= n; c += 32) {
    const __m256i v0 = _mm256_castps_si256(_mm256_loadu_ps(x + c));
    const __m256i v1 = _mm256_castps_si256(_mm256_loadu_ps(x + c + 8));
    const __m256i v2 = _mm256_castps_si256(_mm256_loadu_ps(x + c + 16));
    const __m256i v3 = _mm256_castps_si256(_mm256_loadu_ps(x + c + 24));
    const __m256i together = _mm256_or_si256(_mm256_or_si256(v0, v1), _mm256_or_si256(v2, v3));
    if (_mm256_testz_si256(together, magnitude)) continue;
    keep(look(v0) | look(v1) << 8 | look(v2) << 16 | look(v3) << 24, c);
  }
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  for (; c < n; c += 8) {
    const int left = static_cast<int>(n - c);
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane);
    const uint32_t hit = look(_mm256_castps_si256(_mm256_maskload_ps(x + c, inside)));
    if (hit != 0) keep(hit, c);
  }
  uint32_t lanes[2][8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes[0]), most);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes[1]), any);
  for (int i = 0; i < 8; ++i) {
    top = lanes[0][i] > top ? lanes[0][i] : top;
    sign |= lanes[1][i];
  }
  *largest = top;
  *signs = sign >> 31;
  return count;
}

}  // namespace
}  // namespace nodebits
