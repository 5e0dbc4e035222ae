// AVX-512 F, BW, DQ, VL, VNNI, VBMI and GFNI: what they are called and how the kernels see them.
#pragma once

#include <immintrin.h>

#include "isa/avx512/vec64.h"
#include "isa/isa.h"
#include "isa/vec16.h"
#include "isa/vec32.h"

namespace nodebits {
namespace {

struct Avx512Bits {
  static __m256i load_tail(const uint8_t* p, int n, const uint8_t* /*table_end*/) {
    return _mm256_maskz_loadu_epi8(n >= 32 ? 0xffffffffu : (1u << n) - 1, p);
  }
  static __m256i sum3(__m256i a, __m256i b, __m256i c) {
    return _mm256_ternarylogic_epi64(a, b, c, 0x96);
  }
  static __m256i carry3(__m256i a, __m256i b, __m256i c) {
    return _mm256_ternarylogic_epi64(a, b, c, 0xe8);
  }
  static __m256i select(__m256i m, __m256i a, __m256i b) {
    return _mm256_ternarylogic_epi64(m, a, b, 0xca);
  }
};

struct Avx512 {
  static constexpr const char* kMissing = "AVX-512 F, BW, DQ, VL, VNNI, VBMI or GFNI";
  using ByteVectors = Vectors<Vec64, Vec32<Avx512Bits>, Vec16>;
  static constexpr bool kSharedRegister = true;  // Vec64 holds blocks of several rows

  // Runs on any processor, although it is compiled beside code that does not.
  __attribute__((noinline, target("no-avx"))) static bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("gfni");
  }
};

}  // namespace
}  // namespace nodebits
