// AVX2 and BMI2: what they are called and how the kernels see them.
#pragma once

#include <immintrin.h>

#include "isa/isa.h"
#include "isa/tail.h"
#include "isa/vec16.h"
#include "isa/vec32.h"

namespace nodebits {
namespace {

struct Avx2Bits {
  static __m256i load_tail(const uint8_t* p, int n, const uint8_t* table_end) {
    if (table_end - p >= 32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(Tail<32>(p, n).bytes));
  }
  static __m256i sum3(__m256i a, __m256i b, __m256i c) {
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
  }
  static __m256i carry3(__m256i a, __m256i b, __m256i c) {
    return _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_xor_si256(a, b)));
  }
  static __m256i select(__m256i m, __m256i a, __m256i b) {
    return _mm256_or_si256(_mm256_and_si256(m, a), _mm256_andnot_si256(m, b));
  }
};

struct Avx2 {
  static constexpr const char* kMissing = "AVX2 or BMI2";
  using ByteVectors = Vectors<Vec32<Avx2Bits>, Vec16>;
  static constexpr bool kSharedRegister = false;

  // Runs on any processor, although it is compiled beside code that does not.
  __attribute__((noinline, target("no-avx"))) static bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  }
};

}  // namespace
}  // namespace nodebits
