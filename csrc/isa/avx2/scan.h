// The scan of float features, eight at a time.
#pragma once

#include <immintrin.h>

#include "families/scan.h"
#include "isa/avx2/traits.h"

namespace nodebits {
namespace {

// The lanes of a byte's bits that are set, in front of the others.
struct Fronts {
  uint8_t lanes[256][8] = {};

  constexpr Fronts() {
    for (int mask = 0; mask < 256; ++mask) {
      int n = 0;
      for (int lane = 0; lane < 8; ++lane) {
        if (mask >> lane & 1) lanes[mask][n++] = static_cast<uint8_t>(lane);
      }
    }
  }
};
constexpr Fronts kFronts;

constexpr int64_t kScanned = 2048;  // columns that are looked at before any of them is kept

// Appends the columns and the bits of the values of one row that are not zero; returns how many, or
// -1 when they do not fit. The largest magnitude comes out as its bits, whose order is that of the
// floats, with NaN above infinity.
//
// Blocks of 32 that hold something are found first and worked on then: a branch on either would be
// foreseen wrongly for every other block of a bag of words.
inline int64_t scan_row(Avx2, const float* x, int64_t n, int64_t room, int32_t* cols, float* values,
                        uint32_t* largest, uint32_t* signs) {
  int64_t count = 0;
  uint32_t top = 0, sign = 0;
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), none = _mm256_setzero_si256();
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  __m256i most = none, any = none;
  // Bit k of the result: whether lane k is not zero.
  const auto look = [&](__m256i v) {
    const __m256i size = _mm256_and_si256(v, magnitude);
    const __m256i some = _mm256_cmpgt_epi32(size, none);
    most = _mm256_max_epu32(most, size);
    any = _mm256_or_si256(any, _mm256_and_si256(some, v));
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(some)));
  };
  const auto load = [&](int64_t c) { return _mm256_castps_si256(_mm256_loadu_ps(x + c)); };
  // Eight values, with places for all of them: those that are not zero come first.
  const auto append = [&](__m256i v, __m256i start) {
    const uint32_t hit = look(v);
    const __m256i from =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kFronts.lanes[hit])));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(cols + count), _mm256_add_epi32(from, start));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + count),
                        _mm256_permutevar8x32_epi32(v, from));
    count += __builtin_popcount(hit);
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
  const int64_t whole = n / 32 * 32;
  for (int64_t c0 = 0; c0 < whole; c0 += kScanned) {
    const int64_t c1 = whole - c0 < kScanned ? whole : c0 + kScanned;
    int32_t blocks[kScanned / 32];
    int found = 0;
    for (int64_t c = c0; c < c1; c += 32) {
      const __m256i low = _mm256_or_si256(load(c), load(c + 8));
      const __m256i high = _mm256_or_si256(load(c + 16), load(c + 24));
      blocks[found] = static_cast<int32_t>(c);
      found += _mm256_testz_si256(_mm256_or_si256(low, high), magnitude) == 0 ? 1 : 0;
    }
    for (int i = 0; i < found; ++i) {
      const int64_t c = blocks[i];
      // What is looked at next: the work here is more than hardware prefetchers wait.
      __builtin_prefetch(x + c + 1024);
      __builtin_prefetch(x + c + 1024 + 16);
      if (count >= 0 && count + 32 <= room) {
        const __m256i start = _mm256_set1_epi32(blocks[i]);
        append(load(c), start);
        append(load(c + 8), _mm256_add_epi32(start, _mm256_set1_epi32(8)));
        append(load(c + 16), _mm256_add_epi32(start, _mm256_set1_epi32(16)));
        append(load(c + 24), _mm256_add_epi32(start, _mm256_set1_epi32(24)));
        continue;
      }
      uint32_t hit = look(load(c));
      for (int v = 1; v < 4; ++v) hit |= look(load(c + 8 * v)) << (8 * v);
      keep(hit, c);
    }
  }
  for (int64_t c = whole; c < n; c += 8) {
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
