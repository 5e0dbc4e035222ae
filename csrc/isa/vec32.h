// Thirty-two byte lanes on AVX2 (or AVX-512VL); the members are those of Vec16.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nodebits {
namespace {

// Special gives load_tail, sum3, carry3 and select, for which AVX-512 has instructions.
template <class Special>
struct Vec32 {
  static constexpr int kBytes = 32;
  __m256i v;

  static Vec32 zero() { return {_mm256_setzero_si256()}; }
  static Vec32 fill(uint8_t x) { return {_mm256_set1_epi8(static_cast<char>(x))}; }
  static Vec32 load(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  static Vec32 load_tail(const uint8_t* p, int n, const uint8_t* table_end) {
    return {Special::load_tail(p, n, table_end)};
  }
  static Vec32 sum3(Vec32 a, Vec32 b, Vec32 c) { return {Special::sum3(a.v, b.v, c.v)}; }
  static Vec32 carry3(Vec32 a, Vec32 b, Vec32 c) { return {Special::carry3(a.v, b.v, c.v)}; }
  static Vec32 select(Vec32 m, Vec32 a, Vec32 b) { return {Special::select(m.v, a.v, b.v)}; }
  friend Vec32 operator&(Vec32 a, Vec32 b) { return {_mm256_and_si256(a.v, b.v)}; }
  friend Vec32 operator^(Vec32 a, Vec32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
  friend Vec32 add8(Vec32 a, Vec32 b) { return {_mm256_add_epi8(a.v, b.v)}; }
  friend Vec32 add16(Vec32 a, Vec32 b) { return {_mm256_add_epi16(a.v, b.v)}; }
  template <int N>
  Vec32 shr16() const {
    return {_mm256_srli_epi16(v, N)};
  }
  template <int N>
  Vec32 shl16() const {
    return {_mm256_slli_epi16(v, N)};
  }
  void store(uint8_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  friend Vec32 add32(Vec32 a, Vec32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
  friend Vec32 add64(Vec32 a, Vec32 b) { return {_mm256_add_epi64(a.v, b.v)}; }
  friend Vec32 sub64(Vec32 a, Vec32 b) { return {_mm256_sub_epi64(a.v, b.v)}; }
  template <int N>
  Vec32 shl64() const {
    return {_mm256_slli_epi64(v, N)};
  }
  template <int B>
  Vec32 odd() const {
    if constexpr (B == 16) return {_mm256_srli_epi32(v, 16)};
    if constexpr (B == 8) return shr16<8>();
    if constexpr (B == 4) return shr16<4>() & fill(0x0f);
    if constexpr (B == 2) return shr16<2>() & fill(0x33);
  }
  template <int kRows, bool kTail, class I>
  static Vec32 load_rows(const uint8_t* base, int64_t stride, const I* i, int64_t /*n*/, int bytes,
                         const uint8_t* table_end) {
    static_assert(kRows == 1);
    const uint8_t* p = base + static_cast<int64_t>(i[0]) * stride;
    if constexpr (kTail) return load_tail(p, bytes, table_end);
    return load(p);
  }
  friend Vec32 zip_lo8(Vec32 a, Vec32 b) { return {_mm256_unpacklo_epi8(a.v, b.v)}; }
  friend Vec32 zip_hi8(Vec32 a, Vec32 b) { return {_mm256_unpackhi_epi8(a.v, b.v)}; }

  static void put(__m256i x, int32_t* out, bool add) {
    __m256i* to = reinterpret_cast<__m256i*>(out);
    _mm256_storeu_si256(to, add ? _mm256_add_epi32(x, _mm256_loadu_si256(to)) : x);
  }
  static void flush8(Vec32 a, int32_t* out, int64_t lane_stride, bool add) {
    const __m128i lo = _mm256_castsi256_si128(a.v), hi = _mm256_extracti128_si256(a.v, 1);
    put(_mm256_cvtepu8_epi32(lo), out, add);
    put(_mm256_cvtepu8_epi32(_mm_srli_si128(lo, 8)), out + 8, add);
    put(_mm256_cvtepu8_epi32(hi), out + lane_stride, add);
    put(_mm256_cvtepu8_epi32(_mm_srli_si128(hi, 8)), out + lane_stride + 8, add);
  }
  static void flush16(Vec32 even, Vec32 odd, int32_t* out, int64_t lane_stride, bool add) {
    const __m256i a = _mm256_unpacklo_epi16(even.v, odd.v),
                  b = _mm256_unpackhi_epi16(even.v, odd.v);
    put(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), out, add);
    put(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(b)), out + 8, add);
    put(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)), out + lane_stride, add);
    put(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(b, 1)), out + lane_stride + 8, add);
  }
};

}  // namespace
}  // namespace nodebits
