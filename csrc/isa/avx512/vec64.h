// Sixty-four byte lanes on AVX-512; the members are those of Vec16.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nodebits {
namespace {

// sum += products of four codes and weights per lane. The intrinsic would do, but gcc 12 then
// copies and stores every accumulator in every step (0.6 of the speed).
inline void add_products(__m512i& sum, __m512i codes, __m512i weights) {
  __m512i local = sum;
  __asm__("vpdpbusd %2, %1, %0" : "+v"(local) : "v"(codes), "v"(weights));
  sum = local;
}

struct Vec64 {
  static constexpr int kBytes = 64;
  __m512i v;

  static Vec64 zero() { return {_mm512_setzero_si512()}; }
  static Vec64 fill(uint8_t x) { return {_mm512_set1_epi8(static_cast<char>(x))}; }
  static Vec64 load(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
  static Vec64 load_tail(const uint8_t* p, int n, const uint8_t* /*table_end*/) {
    return {_mm512_maskz_loadu_epi8(n >= 64 ? ~0ull : (1ull << n) - 1, p)};
  }
  static Vec64 sum3(Vec64 a, Vec64 b, Vec64 c) {
    return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0x96)};
  }
  static Vec64 carry3(Vec64 a, Vec64 b, Vec64 c) {
    return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0xe8)};
  }
  static Vec64 select(Vec64 m, Vec64 a, Vec64 b) {
    return {_mm512_ternarylogic_epi64(m.v, a.v, b.v, 0xca)};
  }
  friend Vec64 operator&(Vec64 a, Vec64 b) { return {_mm512_and_si512(a.v, b.v)}; }
  friend Vec64 operator^(Vec64 a, Vec64 b) { return {_mm512_xor_si512(a.v, b.v)}; }
  friend Vec64 add8(Vec64 a, Vec64 b) { return {_mm512_add_epi8(a.v, b.v)}; }
  friend Vec64 add16(Vec64 a, Vec64 b) { return {_mm512_add_epi16(a.v, b.v)}; }
  template <int N>
  Vec64 shr16() const {
    return {_mm512_srli_epi16(v, N)};
  }
  template <int N>
  Vec64 shl16() const {
    return {_mm512_slli_epi16(v, N)};
  }
  void store(uint8_t* p) const { _mm512_storeu_si512(p, v); }
  friend Vec64 add32(Vec64 a, Vec64 b) { return {_mm512_add_epi32(a.v, b.v)}; }
  friend Vec64 add64(Vec64 a, Vec64 b) { return {_mm512_add_epi64(a.v, b.v)}; }
  friend Vec64 sub64(Vec64 a, Vec64 b) { return {_mm512_sub_epi64(a.v, b.v)}; }
  template <int N>
  Vec64 shl64() const {
    return {_mm512_slli_epi64(v, N)};
  }
  // Shift and mask of bytes are one multiplication with a bit matrix.
  template <int B>
  Vec64 odd() const {
    if constexpr (B == 16) return {_mm512_srli_epi32(v, 16)};
    if constexpr (B == 8) return {_mm512_srli_epi16(v, 8)};
    if constexpr (B == 4) {
      return {_mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(0x1020408000000000ll), 0)};
    }
    if constexpr (B == 2) {
      return {_mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(0x0408000040800000ll), 0)};
    }
  }
  // Block of rows i[0] .. i[n - 1], side by side; the places of rows from n on are zero.
  template <int kRows, bool kTail, class I>
  static Vec64 load_rows(const uint8_t* base, int64_t stride, const I* i, int64_t n, int bytes,
                         const uint8_t* /*table_end*/) {
    const auto at = [&](int k) { return base + static_cast<int64_t>(i[k]) * stride; };
    if constexpr (kRows == 1) {
      if constexpr (kTail) return load_tail(at(0), bytes, nullptr);
      return load(at(0));
    } else if constexpr (kRows == 2) {
      const __mmask32 mask = kTail ? static_cast<__mmask32>((1ull << bytes) - 1) : ~0u;
      const auto half = [&](int k) {
        if constexpr (kTail) return _mm256_maskz_loadu_epi8(mask, at(k));
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at(k)));
      };
      if (n < 2) return {_mm512_zextsi256_si512(half(0))};
      return {_mm512_inserti64x4(_mm512_castsi256_si512(half(0)), half(1), 1)};
    } else {
      const __mmask16 mask = kTail ? static_cast<__mmask16>((1u << bytes) - 1) : 0xffff;
      const auto quarter = [&](int k) {
        if constexpr (kTail) return _mm_maskz_loadu_epi8(mask, at(k));
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at(k)));
      };
      if (n < 4) {
        __m512i r = _mm512_zextsi128_si512(quarter(0));
        if (n > 1) r = _mm512_inserti32x4(r, quarter(1), 1);
        if (n > 2) r = _mm512_inserti32x4(r, quarter(2), 2);
        return {r};
      }
      const __m256i lo = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(0)), quarter(1), 1);
      const __m256i hi = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(2)), quarter(3), 1);
      return {_mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1)};
    }
  }
  // (a's halves added, b's halves added)
  friend Vec64 fold_halves(Vec64 a, Vec64 b) {
    return {_mm512_add_epi64(_mm512_shuffle_i64x2(a.v, b.v, 0x44),
                             _mm512_shuffle_i64x2(a.v, b.v, 0xee))};
  }
  // Neighbouring 128-bit lanes added: two sums of a, two of b.
  friend Vec64 fold_pairs(Vec64 a, Vec64 b) {
    return {_mm512_add_epi64(_mm512_shuffle_i64x2(a.v, b.v, 0x88),
                             _mm512_shuffle_i64x2(a.v, b.v, 0xdd))};
  }
  friend Vec64 zip_lo8(Vec64 a, Vec64 b) { return {_mm512_unpacklo_epi8(a.v, b.v)}; }
  friend Vec64 zip_hi8(Vec64 a, Vec64 b) { return {_mm512_unpackhi_epi8(a.v, b.v)}; }

  static void put(__m512i x, int32_t* out, bool add) {
    _mm512_storeu_si512(out, add ? _mm512_add_epi32(x, _mm512_loadu_si512(out)) : x);
  }
  static void flush8(Vec64 a, int32_t* out, int64_t lane_stride, bool add) {
    put(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(a.v)), out, add);
    put(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(a.v, 1)), out + lane_stride, add);
    put(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(a.v, 2)), out + 2 * lane_stride, add);
    put(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(a.v, 3)), out + 3 * lane_stride, add);
  }
  static void flush16(Vec64 even, Vec64 odd, int32_t* out, int64_t lane_stride, bool add) {
    const __m512i a = _mm512_unpacklo_epi16(even.v, odd.v),
                  b = _mm512_unpackhi_epi16(even.v, odd.v);
    // Lane j of a and of b hold the first and the second eight of the sixteen columns that belong
    // together.
    const __m512i first =
        _mm512_permutex2var_epi64(a, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), b);
    const __m512i last =
        _mm512_permutex2var_epi64(a, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), b);
    put(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(first)), out, add);
    put(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(first, 1)), out + lane_stride, add);
    put(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(last)), out + 2 * lane_stride, add);
    put(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(last, 1)), out + 3 * lane_stride, add);
  }
};

}  // namespace
}  // namespace nodebits
