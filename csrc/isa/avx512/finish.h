// Quantizing, rescaling and finishing rows by blocks of 64 columns in registers.
#pragma once

#include "families/fused.h"
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
  by_row_blocks(n, [&]<bool kWhole, int kVectors>(int64_t c, int64_t count) {
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

// As pack_floats, of up to 64 columns in registers; `inverse` is that of `column`.
template <bool kWhole, int kVectors>
inline void pack_vectors(const RowTarget& t, const float* inverse, int64_t column, int64_t n,
                         const __m512* y, const __mmask16* lanes) {
  __m512i codes[4];
  if (t.per_column) {
    codes_of_row<kWhole, kVectors, true>(y, lanes, t.factor, t.scale + column,
                                         t.zero_point + column, inverse, t.qmax, codes);
  } else {
    codes_of_row<kWhole, kVectors, false>(y, lanes, t.factor, t.scale, t.zero_point, inverse,
                                          t.qmax, codes);
  }
  pack_row(codes, n, t.qmax, t.shift, t.stored, t.to + column / 8 * t.stored);
}

// Columns [c, c + n) of all rows of the tiles, n <= 64. What rows have in common is looked up once.
template <bool kWhole, int kVectors>
inline void finish_block(const FusedArgs& a, const Tile* tiles, int64_t c, int64_t n) {
  struct {
    bool uniform;  // rows differ in place and factor alone
    RowTarget target;
    int64_t stride;
    const float* inverse;
  } prepared[kPrepared];
  float room[kPrepared][64];
  const int num_outputs = a.num_outputs;
  for (int i = 0; i < num_outputs && i < kPrepared; ++i) {
    const FusedOutput& o = a.outputs[i];
    prepared[i].inverse =
        o.axis != 0 ? inverses_of(Avx512{}, o, a.num_cols, c, n, room[i]) : nullptr;
    prepared[i].uniform = o.widths == nullptr && o.shift == nullptr && o.axis != 0;
    if (prepared[i].uniform) prepared[i].target = row_target(o, a.num_cols, 0);
    prepared[i].stride = packed_row_bytes(a.num_cols, o.bits);
  }
  __mmask16 lanes[4];
  lanes_of_row(n, lanes);
  // Stores of bytes may change anything, for all the compiler knows: what every row needs is read
  // through `a` once.
  const FusedTerm only = a.terms[0];
  const bool in_registers = a.num_terms == 1 && a.own == nullptr && only.epilogue.heads == 1;
  const int32_t* order = a.order;
  const float* mixed = a.mixed != nullptr ? a.mixed + c : nullptr;
  float* floats = a.floats != nullptr ? a.floats + c : nullptr;
  const float* post_scale = a.post_scale != nullptr ? a.post_scale + c : nullptr;
  const float* post_shift = a.post_shift != nullptr ? a.post_shift + c : nullptr;
  const int64_t num_cols = a.num_cols;
  const bool relu = a.relu;
  const float keep = a.keep, teleport = a.teleport;
  const Tile t = tiles[0];
  const int32_t* acc = t.out + (c - t.col_begin);
  for (int64_t r = t.row_begin; r < t.row_end; ++r, acc += t.stride) {
    const int64_t row = order != nullptr ? order[r] : r;
    __m512 y[4];
    if (in_registers) {
      rescale_row<kWhole, kVectors>(only, row, c, acc, lanes, y);
      if (mixed != nullptr)
        combine_row<kWhole, kVectors>(mixed + row * num_cols, lanes, keep, teleport, y);
    } else {
      alignas(64) float buffer[64 + 16];  // a last vector may begin before its end
      join_terms(Avx512{}, a, tiles, r, row, c, n, buffer, true);
      load_row<kWhole, kVectors>(buffer, lanes, y);
    }
    if (post_scale != nullptr) affine_row<kWhole, kVectors>(post_scale, post_shift, lanes, y);
    if (relu) relu_row<kVectors>(y);
    if (num_outputs == 0) store_row<kVectors>(y, lanes, floats + row * num_cols);
    for (int i = 0; i < num_outputs; ++i) {
      const FusedOutput& o = a.outputs[i];
      RowTarget target;
      const float* inverse = i < kPrepared ? prepared[i].inverse : nullptr;
      float own;
      if (i < kPrepared && prepared[i].uniform) {
        target = prepared[i].target;
        target.to += row * prepared[i].stride;
        target.factor = o.row_factor != nullptr ? o.row_factor[row] : 1.0f;
      } else {
        target = row_target(o, num_cols, row);
        if (o.axis == 0)
          inverse = exact_inverses(Avx512{}, target.scale, target.zero_point, 1, &own);
      }
      pack_vectors<kWhole, kVectors>(target, inverse, c, n, y, lanes);
    }
  }
}

inline void finish_tile(Avx512, const FusedArgs& a, const Tile* tiles) {
  const Tile& t = tiles[0];
  by_row_blocks(t.col_end - t.col_begin, [&]<bool kWhole, int kVectors>(int64_t j, int64_t n) {
    finish_block<kWhole, kVectors>(a, tiles, t.col_begin + j, n);
  });
}

}  // namespace
}  // namespace nodebits
