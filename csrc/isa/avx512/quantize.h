// Sixteen floats to codes: where it is proven to give the bits of the division, as multiplications.
#pragma once

#include <immintrin.h>

#include "isa/avx512/traits.h"

namespace nodebits {
namespace {

// Calls f(j, lanes, written) for sixteen values at a time: the lanes that exist, and those that may
// be written: all where the destination is `padded` to a multiple of 16 (a masked store keeps the
// loads that follow it waiting).
template <class F>
inline void by_sixteen(int64_t n, bool padded, const F& f) {
  int64_t j = 0;
  for (; j + 16 <= n; j += 16) f(j, __mmask16{0xffff}, __mmask16{0xffff});
  if (j == n) return;
  const __mmask16 lanes = static_cast<__mmask16>((1u << (n - j)) - 1);
  f(j, lanes, padded ? __mmask16{0xffff} : lanes);
}

// Where a division may be done as multiplications that give its bits, 1 / scale of every column
// goes to `inverse`, which is returned; elsewhere the result is null, and spans divide.
//
// With r = 1 / s rounded, q = x r is within two units in the last place of x / s, one correction
// q + (x - q s) r makes it faithful, and a second one correctly rounded (Markstein's theorem; both
// differences are exact in a fused multiply-add). Excluded are scales for which something would
// leave the range of floats, and zero points to which a value that is cut off still matters.
inline const float* exact_inverses(Avx512, const float* scale, const float* zero_point, int64_t n,
                                   float* inverse) {
  bool exact = true;
  for (int64_t j = 0; j < n; ++j) {
    const float size = zero_point[j] < 0.0f ? -zero_point[j] : zero_point[j];
    exact &= (scale[j] >= 0x1p-40f) & (scale[j] <= 0x1p40f) & (size <= 0x1p22f);
    inverse[j] = 1.0f / scale[j];
  }
  return exact ? inverse : nullptr;
}

// v / s rounded; r is 1 / s rounded. See exact_inverses.
inline __m512 exact_quotient(__m512 v, __m512 s, __m512 r) {
  __m512 q = _mm512_mul_ps(v, r);
  q = _mm512_fmadd_ps(_mm512_fnmadd_ps(q, s, v), r, q);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, s, v), r, q);
}

// x / s + z between 0 and the last code. r is 1 / s where kMultiply, otherwise not used.
template <bool kMultiply>
inline __m512 clamped(__m512 v, __m512 s, __m512 z, __m512 r, __m512 top) {
  if constexpr (kMultiply) {
    // Codes of what is cut off are the first or the last; NaN passes, as the second operand.
    v = _mm512_max_ps(_mm512_set1_ps(-0x1p80f), v);
    v = _mm512_min_ps(_mm512_set1_ps(0x1p80f), v);
    v = exact_quotient(v, s, r);
  } else {
    v = _mm512_div_ps(v, s);
  }
  // As rounded_code: of NaN, and of two zeros, the second operand is the maximum.
  return _mm512_min_ps(_mm512_max_ps(_mm512_add_ps(v, z), _mm512_setzero_ps()), top);
}

// 2^23 + code of every value.
template <bool kMultiply>
inline __m512 quantized(__m512 v, __m512 s, __m512 z, __m512 r, __m512 top) {
  return _mm512_add_ps(clamped<kMultiply>(v, s, z, r, top), _mm512_set1_ps(8388608.0f));
}

// Values to 2^23 + code, handed to store(j, written, values).
template <bool kPerColumn, bool kMultiply, class Store>
inline void quantize_vectors(const float* x, int64_t n, float factor, const float* scale,
                             const float* zero_point, const float* inverse, float qmax, bool padded,
                             const Store& store) {
  const __m512 top = _mm512_set1_ps(qmax), by = _mm512_set1_ps(factor);
  const __m512 s0 = _mm512_set1_ps(*scale), z0 = _mm512_set1_ps(*zero_point);
  const __m512 r0 = _mm512_set1_ps(kMultiply ? *inverse : 0.0f);
  by_sixteen(n, padded, [&](int64_t j, __mmask16 lanes, __mmask16 written) {
    __m512 s = s0, z = z0, r = r0;
    if constexpr (kPerColumn) {
      s = _mm512_maskz_loadu_ps(lanes, scale + j);
      z = _mm512_maskz_loadu_ps(lanes, zero_point + j);
      if constexpr (kMultiply) r = _mm512_maskz_loadu_ps(lanes, inverse + j);
    }
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + j), by);
    store(j, written, quantized<kMultiply>(v, s, z, r, top));
  });
}

template <bool kPerColumn, class Store>
inline void quantize_vectors(const float* x, int64_t n, float factor, const float* scale,
                             const float* zero_point, const float* inverse, float qmax, bool padded,
                             const Store& store) {
  if (inverse != nullptr) {
    quantize_vectors<kPerColumn, true>(x, n, factor, scale, zero_point, inverse, qmax, padded,
                                       store);
  } else {
    quantize_vectors<kPerColumn, false>(x, n, factor, scale, zero_point, inverse, qmax, padded,
                                        store);
  }
}

}  // namespace
}  // namespace nodebits
