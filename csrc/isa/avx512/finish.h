// Quantizing, rescaling and finishing rows by blocks of 64 columns in registers.
#pragma once

#include "families/finish.h"
#include "isa/avx512/pack.h"
#include "isa/avx512/rows.h"

namespace nodebits {
namespace {

// n values to packed codes of `bits`, shifted left by `shift` (8 bits only). `inverse`: what
// exact_inverses gave for the same columns.
template <bool kPerColumn>
inline void quantize_packed(Avx512, const float* x, int64_t n, float factor, const float* scale,
                            const float* zero_point, const float* inverse, float qmax, int bits,
                            int shift, uint8_t* to) {
  by_row_blocks<16>(n, [&]<bool kWhole, int kVectors>(int64_t c, int64_t count) {
    const int64_t at = kPerColumn ? c : 0;
    __mmask16 lanes[4];
    __m512 y[4];
    __m512i codes[4];
    lanes_of_row(count, lanes);
    load_row<kWhole, kVectors>(x + c, lanes, y);
    codes_of_row<kWhole, kVectors, kPerColumn>(y, lanes, factor, scale + at, zero_point + at,
                                               inverse != nullptr ? inverse + at : nullptr, qmax,
                                               codes);
    pack_row(codes, count, qmax, shift, bits, to + c / 8 * bits);
  });
}

template <bool kPerColumn>
inline void quantize_float_span(Avx512, const float* x, int64_t n, float factor, const float* scale,
                                const float* zero_point, const float* inverse, float qmax,
                                float* out) {
  quantize_vectors<kPerColumn>(
      x, n, factor, scale, zero_point, inverse, qmax, false,
      [&](int64_t j, __mmask16 written, __m512 v) {
        _mm512_mask_storeu_ps(out + j, written, _mm512_sub_ps(v, _mm512_set1_ps(8388608.0f)));
      });
}

// Columns [begin, end) of row i, whose sums start at `acc`; added to `out` where kAdd. `padded`:
// all lanes of the last vector may be written to `out`.
template <bool kAdd>
inline void rescale_span(Avx512, const RescaleArgs& a, int64_t i, int64_t begin, int64_t end,
                         const int32_t* acc, float* out, bool padded) {
  const int64_t width = a.num_cols / a.heads;
  for (int64_t c = begin; c < end;) {
    const int64_t h = a.heads == 1 ? 0 : c / width;
    const int64_t stop = a.heads == 1 || (h + 1) * width > end ? end : (h + 1) * width;
    const float row_offset = a.row_offset != nullptr ? a.row_offset[i * a.heads + h] : 1.0f;
    const float row_scale = a.row_scale != nullptr ? a.row_scale[i * a.heads + h] : 1.0f;
    const int32_t* sums = acc + (c - begin);
    float* to = out + (c - begin);
    const float* col_scale = a.col_scale + c;
    const float* bias = a.bias + c;
    const int64_t n = stop - c;
    const __m512 own_offset = _mm512_set1_ps(row_offset), own_scale = _mm512_set1_ps(row_scale);
    by_sixteen(n, padded && stop == end, [&](int64_t j, __mmask16 lanes, __mmask16 written) {
      __m512 y = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(lanes, sums + j));
      if (a.col_offset != nullptr) {
        const __m512 offset = _mm512_maskz_loadu_ps(lanes, a.col_offset + c + j);
        y = _mm512_sub_ps(y, _mm512_mul_ps(own_offset, offset));
      }
      y = _mm512_mul_ps(_mm512_mul_ps(y, _mm512_maskz_loadu_ps(lanes, col_scale + j)), own_scale);
      y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(lanes, bias + j));
      if constexpr (kAdd) y = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, to + j), y);
      if (written == 0xffff) {
        _mm512_storeu_ps(to + j, y);
      } else {
        _mm512_mask_storeu_ps(to + j, written, y);
      }
    });
    c = stop;
  }
}

// See families/finish.h.
template <bool kWhole, int kVectorsOf>
struct Avx512Row {
  using Isa = Avx512;
  using Float = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kVectors = kVectorsOf;
  static constexpr bool kWholeBlock = kWhole;

  struct Lanes {
    __mmask16 of[4];
    explicit Lanes(int64_t n) { lanes_of_row(n, of); }
  };

  static Float load(const float* x) { return _mm512_loadu_ps(x); }
  template <int K>
  static Float load_some(const Lanes& lanes, const float* x) {
    return load_lanes_of<kWhole>(lanes.of[K], x);
  }
  template <int K>
  static void store(const Lanes& lanes, Float y, float* to) {
    if constexpr (kWhole || K + 1 < kVectors) {
      _mm512_storeu_ps(to, y);
    } else {
      _mm512_mask_storeu_ps(to, lanes.of[K], y);
    }
  }
  template <int K>
  static Float sums(const Lanes& lanes, const int32_t* acc) {
    return _mm512_cvtepi32_ps(kWhole ? _mm512_loadu_si512(acc)
                                     : _mm512_maskz_loadu_epi32(lanes.of[K], acc));
  }
  static Float codes(const uint8_t* x) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
  }
  static Float all(float x) { return _mm512_set1_ps(x); }
  // The maximum is the second operand where either is NaN or both are zeros.
  static Float at_least(Float least, Float y) { return _mm512_max_ps(least, y); }

  static Float line(Float x, Float slope, Float start) { return _mm512_fmadd_ps(x, slope, start); }
  __attribute__((always_inline)) static void write_line(const Float* y, const uint8_t* least,
                                                        int64_t n, int bits, uint8_t* to) {
    __m512i codes[4];
    for (int k = kVectors; k < 4; ++k) codes[k] = _mm512_setzero_si512();
    unrolled<kVectors>([&]<int K>() { codes[K] = _mm512_cvtps_epi32(y[K]); });
    const __m512i bytes = bytes_of_row(codes, (1 << bits) - 1);
    store_row(_mm512_max_epu8(bytes, _mm512_loadu_si512(least)), kWhole ? 64 : n, bits, to);
  }

  static void pack(const RowTarget& t, const float* inverse, int64_t column, int64_t n,
                   const Float* y, const Lanes& lanes) {
    __m512i codes[4];
    if (t.per_column) {
      codes_of_row<kWhole, kVectors, true>(y, lanes.of, t.factor, t.scale + column,
                                           t.zero_point + column, inverse, t.qmax, codes);
    } else {
      codes_of_row<kWhole, kVectors, false>(y, lanes.of, t.factor, t.scale, t.zero_point, inverse,
                                            t.qmax, codes);
    }
    pack_row(codes, n, t.qmax, t.shift, t.stored, t.to + column / 8 * t.stored);
  }

  struct Packing {
    const float *scale, *zero_point, *inverse;
    float qmax;
    int bits;
    bool per_column;

    Packing(const RowTarget* t, const float* inverse_of, int64_t column, int64_t /*n*/) {
      if (t == nullptr) return;
      const int64_t at = t->per_column ? column : 0;
      scale = t->scale + at;
      zero_point = t->zero_point + at;
      inverse = inverse_of;
      qmax = t->qmax;
      bits = t->stored;
      per_column = t->per_column;
    }

    __attribute__((always_inline)) void write(const Float* y, uint8_t* to) const {
      static constexpr __mmask16 kAll[4] = {0xffff, 0xffff, 0xffff, 0xffff};
      __m512i codes[4];
      if (per_column) {
        codes_of_row<true, 4, true>(y, kAll, 1.0f, scale, zero_point, inverse, qmax, codes);
      } else {
        codes_of_row<true, 4, false>(y, kAll, 1.0f, scale, zero_point, inverse, qmax, codes);
      }
      pack_row(codes, 64, qmax, 0, bits, to);
    }
  };
};

inline void finish_tile(Avx512, const FusedArgs& a, const Tile* tiles) {
  finish_in_registers<Avx512Row>(a, tiles);
}

}  // namespace
}  // namespace nodebits
