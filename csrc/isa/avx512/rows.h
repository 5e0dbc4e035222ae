// Sixty-four columns of a row in registers, four vectors of sixteen: floats to codes, codes to
// bits. Operations and their order are those of quantize.h.
#pragma once

#include <immintrin.h>

#include "families/pack.h"
#include "isa/avx512/quantize.h"

namespace nodebits {
namespace {

// Functions below take the number of vectors that have columns as kVectors: seven classes are one
// vector's work, not four's.

// Which of the four vectors' lanes exist, of n columns.
inline void lanes_of_row(int64_t n, __mmask16* lanes) {
  const uint64_t all = n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1;
  for (int k = 0; k < 4; ++k) lanes[k] = static_cast<__mmask16>(all >> (16 * k));
}

// A masked load can't be an operand of what follows it, and takes a step more: whole blocks of 64
// columns (kWhole) go without.
template <bool kWhole>
inline __m512 load_lanes_of(__mmask16 lanes, const float* x) {
  return kWhole ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps(lanes, x);
}

template <bool kWhole, int kVectors>
inline void load_row(const float* x, const __mmask16* lanes, __m512* y) {
  unrolled<kVectors>([&]<int K>() { y[K] = load_lanes_of<kWhole>(lanes[K], x + 16 * K); });
}

// Codes as 32-bit integers, not cut off yet: pack_row does that for all 64 at once. Below 0 is any
// negative number (NaN too: the conversion gives the least one), 0 what lanes hold that do not
// exist.
template <bool kWhole, int kVectors, bool kPerColumn, bool kMultiply>
inline void codes_of_row_as(const __m512* y, const __mmask16* lanes, float factor,
                            const float* scale, const float* zero_point, const float* inverse,
                            float qmax, __m512i* codes) {
  const __m512 by = _mm512_set1_ps(factor), top = _mm512_set1_ps(qmax);
  const __m512 s0 = _mm512_set1_ps(*scale), z0 = _mm512_set1_ps(*zero_point);
  const __m512 r0 = _mm512_set1_ps(kMultiply ? *inverse : 0.0f);
  for (int k = kVectors; k < 4; ++k) codes[k] = _mm512_setzero_si512();
  unrolled<kVectors>([&]<int K>() {
    __m512 s = s0, z = z0, r = r0;
    if constexpr (kPerColumn) {
      s = load_lanes_of<kWhole>(lanes[K], scale + 16 * K);
      z = load_lanes_of<kWhole>(lanes[K], zero_point + 16 * K);
      if constexpr (kMultiply) r = load_lanes_of<kWhole>(lanes[K], inverse + 16 * K);
    }
    __m512 v = _mm512_mul_ps(y[K], by);
    if constexpr (kMultiply) {
      // As clamped(), but for what is cut off anyway. From above it must stay a number in int32.
      v = _mm512_min_ps(_mm512_set1_ps(0x1p80f), v);
      v = _mm512_add_ps(exact_quotient(v, s, r), z);
      v = _mm512_min_ps(_mm512_set1_ps(0x1p30f), v);
    } else {
      v = clamped<false>(v, s, z, r, top);
    }
    // Rounds half to even, as the addition of 2^23 does.
    codes[K] = kWhole ? _mm512_cvtps_epi32(v) : _mm512_maskz_cvtps_epi32(lanes[K], v);
  });
}

// Dividing where there are no inverses.
template <bool kWhole, int kVectors, bool kPerColumn>
inline void codes_of_row(const __m512* y, const __mmask16* lanes, float factor, const float* scale,
                         const float* zero_point, const float* inverse, float qmax,
                         __m512i* codes) {
  if (inverse != nullptr) {
    codes_of_row_as<kWhole, kVectors, kPerColumn, true>(y, lanes, factor, scale, zero_point,
                                                        inverse, qmax, codes);
  } else {
    codes_of_row_as<kWhole, kVectors, kPerColumn, false>(y, lanes, factor, scale, zero_point,
                                                         inverse, qmax, codes);
  }
}

// Sixty-four codes of 3 to 7 bits: as squeeze8, eight to a 64-bit lane, whose bytes then close up.
template <int B>
inline void squeeze_row(__m512i x, int64_t size, uint8_t* to) {
  const auto join = [&](__m512i low, __m512i high, __m512i mask) {
    return _mm512_or_si512(_mm512_and_si512(low, mask), high);
  };
  x = join(x, _mm512_slli_epi16(_mm512_srli_epi16(x, 8), B), _mm512_set1_epi16(0x00ff));
  x = join(x, _mm512_slli_epi32(_mm512_srli_epi32(x, 16), 2 * B), _mm512_set1_epi32(0xffff));
  x = join(x, _mm512_slli_epi64(_mm512_srli_epi64(x, 32), 4 * B), _mm512_set1_epi64(0xffffffffll));
  alignas(64) static constexpr auto kBytes = [] {
    struct {
      uint8_t at[64];
    } order = {};
    for (int i = 0; i < 8 * B; ++i) order.at[i] = static_cast<uint8_t>(i / B * 8 + i % B);
    return order;
  }();
  x = _mm512_permutexvar_epi8(_mm512_load_si512(kBytes.at), x);
  _mm512_mask_storeu_epi8(to, (uint64_t{1} << size) - 1, x);
}

// Sixty-four codes as bytes, cut off at 0 and `top`.
inline __m512i bytes_of_row(const __m512i* codes, int top) {
  // The instructions cut off at 0 and 255. They work within 128-bit lanes; the permutation puts the
  // fours of those back in order.
  const __m512i words = _mm512_packus_epi16(_mm512_packs_epi32(codes[0], codes[1]),
                                            _mm512_packs_epi32(codes[2], codes[3]));
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i bytes = _mm512_permutexvar_epi32(order, words);
  return _mm512_min_epu8(bytes, _mm512_set1_epi8(static_cast<char>(top)));
}

// The first n of 64 codes as fields of `bits`.
inline void store_row(__m512i bytes, int64_t n, int bits, uint8_t* to) {
  const int64_t size = (n * bits + 7) / 8;
  switch (bits) {
    case 8:
      if (n == 64) {
        _mm512_storeu_si512(to, bytes);
      } else {
        _mm512_mask_storeu_epi8(to, (uint64_t{1} << size) - 1, bytes);
      }
      return;
    case 4: {  // u0 + 16 u1, sixteen bits a pair
      const __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(0x1001));
      const __m256i packed = _mm512_cvtepi16_epi8(pairs);
      if (n == 64) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
      } else {
        _mm256_mask_storeu_epi8(to, static_cast<__mmask32>((uint64_t{1} << size) - 1), packed);
      }
      return;
    }
    case 2: {  // u0 + 4 u1, then pairs of those: thirty-two bits for four codes
      const __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi16(0x0401));
      const __m512i fours = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x00100001));
      const __m128i packed = _mm512_cvtepi32_epi8(fours);
      if (n == 64) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), packed);
      } else {
        _mm_mask_storeu_epi8(to, static_cast<__mmask16>((1u << size) - 1), packed);
      }
      return;
    }
    case 1: {
      const uint64_t packed = _mm512_test_epi8_mask(bytes, bytes);
      __builtin_memcpy(to, &packed, static_cast<size_t>(size));
      return;
    }
    case 3:
      return squeeze_row<3>(bytes, size, to);
    case 5:
      return squeeze_row<5>(bytes, size, to);
    case 6:
      return squeeze_row<6>(bytes, size, to);
    default:
      return squeeze_row<7>(bytes, size, to);
  }
}

// Packs n <= 64 codes, cut off at `qmax` and shifted left by `shift`, as fields of `bits`.
inline void pack_row(const __m512i* codes, int64_t n, float qmax, int shift, int bits,
                     uint8_t* to) {
  __m512i bytes = bytes_of_row(codes, static_cast<int>(qmax));
  if (shift != 0) bytes = _mm512_sll_epi16(bytes, _mm_cvtsi32_si128(shift));
  store_row(bytes, n, bits, to);
}

}  // namespace
}  // namespace nodebits
