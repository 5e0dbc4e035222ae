// Thirty-two columns of a row in registers, four vectors of eight (see families/finish.h).
#pragma once

#include <immintrin.h>

#include "families/finish.h"
#include "isa/avx2/quantize.h"

namespace nodebits {
namespace {

template <bool kWhole, int kVectorsOf>
struct Avx2Row {
  using Isa = Avx2;
  using Float = __m256;
  using Lanes = Avx2Lanes;
  static constexpr int kLanes = 8;
  static constexpr int kVectors = kVectorsOf;
  static constexpr bool kWholeBlock = kWhole;

  static Float load(const float* x) { return _mm256_loadu_ps(x); }
  template <int K>
  static Float load_some(const Lanes& lanes, const float* x) {
    return kWhole ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, lanes.of[K]);
  }
  template <int K>
  static void store(const Lanes& lanes, Float y, float* to) {
    if constexpr (kWhole || K + 1 < kVectors) {
      _mm256_storeu_ps(to, y);
    } else {
      _mm256_maskstore_ps(to, lanes.of[K], y);
    }
  }
  template <int K>
  static Float sums(const Lanes& lanes, const int32_t* acc) {
    return _mm256_cvtepi32_ps(kWhole ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(acc))
                                     : _mm256_maskload_epi32(acc, lanes.of[K]));
  }
  static Float codes(const uint8_t* x) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))));
  }
  static Float all(float x) { return _mm256_set1_ps(x); }
  // The maximum is the second operand where either is NaN or both are zeros.
  static Float at_least(Float least, Float y) { return _mm256_max_ps(least, y); }
  static Float line(Float x, Float slope, Float start) {
    return _mm256_add_ps(_mm256_mul_ps(x, slope), start);
  }
  __attribute__((always_inline)) static void write_line(const Float* y, const uint8_t* least,
                                                        int64_t n, int bits, uint8_t* to) {
    __m256i codes[4];
    for (int k = kVectors; k < 4; ++k) codes[k] = _mm256_setzero_si256();
    unrolled<kVectors>([&]<int K>() { codes[K] = _mm256_cvtps_epi32(y[K]); });
    const __m256i bytes = joined(codes, _mm256_set1_epi8(static_cast<char>((1 << bits) - 1)));
    const __m256i floor = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(least));
    write_row<kWhole>(_mm256_max_epu8(bytes, floor), n, bits, 0, to);
  }
  static void pack(const RowTarget& t, const float* /*inverse*/, int64_t column, int64_t n,
                   const Float* y, const Lanes& lanes) {
    const __m256i codes =
        t.per_column ? codes_of_row<kWhole, kVectors, true>(y, lanes, t.factor, t.scale + column,
                                                            t.zero_point + column, t.qmax)
                     : codes_of_row<kWhole, kVectors, false>(y, lanes, t.factor, t.scale,
                                                             t.zero_point, t.qmax);
    write_row<kWhole>(codes, n, t.stored, t.shift, t.to + column / 8 * t.stored);
  }

  struct Packing {
    __m256 scale[4], zero_point[4];
    __m256i top;
    int bits;

    Packing(const RowTarget* t, const float* /*inverse*/, int64_t column, int64_t /*n*/) {
      if (t == nullptr) return;
      for (int k = 0; k < 4; ++k) {
        const int64_t at = column + 8 * k;
        scale[k] = t->per_column ? load(t->scale + at) : all(*t->scale);
        zero_point[k] = t->per_column ? load(t->zero_point + at) : all(*t->zero_point);
      }
      top = _mm256_set1_epi8(static_cast<char>(static_cast<int>(t->qmax)));
      bits = t->stored;
    }

    __attribute__((always_inline)) void write(const Float* y, uint8_t* to) const {
      __m256i codes[4];
      unrolled<4>([&]<int K>() __attribute__((always_inline)) {
        codes[K] = code_of(y[K], scale[K], zero_point[K]);
      });
      write_whole_row(joined(codes, top), bits, to);
    }
  };
};

inline void finish_tile(Avx2, const FusedArgs& a, const Tile* tiles) {
  finish_in_registers<Avx2Row>(a, tiles);
}

}  // namespace
}  // namespace nodebits
