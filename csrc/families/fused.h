// What follows the integer sums of a fused operator: epilogues, activation, quantizers, packing,
// row by row while the tile is in the cache. Every step is that of the operator it stands for.
#pragma once

#include "contract/epilogues.h"
#include "contract/products.h"
#include "families/lanes.h"
#include "families/pack.h"
#include "families/quantize.h"
#include "families/rescale.h"

namespace nodebits {
namespace {

constexpr int64_t kFusedChunk = 512;  // columns at a time; a multiple of 64
constexpr int kPrepared = 4;  // outputs whose inverses are at hand; more are rare, and divide

inline void transform_sums(const FusedTerm& term, int64_t row, int32_t* acc, int64_t n) {
  if (term.acc_scale == nullptr && term.acc_offset == nullptr) return;
  // Unsigned: an intermediate may leave int32 where the result does not.
  const uint32_t scale =
      term.acc_scale != nullptr ? static_cast<uint32_t>(term.acc_scale[row]) : 1u;
  const uint32_t offset =
      term.acc_offset != nullptr ? static_cast<uint32_t>(term.acc_offset[row]) : 0u;
  for (int64_t j = 0; j < n; ++j)
    acc[j] = static_cast<int32_t>(static_cast<uint32_t>(acc[j]) * scale + offset);
}

template <class I>
inline void add_own(I isa, const FusedArgs& a, int64_t row, int64_t column, int64_t n, float* y) {
  const RescaleArgs& e = a.terms[0].epilogue;
  uint8_t codes[kFusedChunk];
  const uint8_t* from =
      a.own + row * packed_row_bytes(a.num_cols, a.own_bits) + column / 8 * a.own_bits;
  with_bits(a.own_bits, [&]<int B>() { unpack_codes<B>(isa, from, n, codes); });
  const float* scale = e.col_scale + column;
  if (e.col_offset != nullptr) {
    const float* offset = e.col_offset + column;
    for (int64_t j = 0; j < n; ++j)
      y[j] = y[j] + a.own_factor * ((static_cast<float>(codes[j]) - offset[j]) * scale[j]);
  } else {
    for (int64_t j = 0; j < n; ++j)
      y[j] = y[j] + a.own_factor * (static_cast<float>(codes[j]) * scale[j]);
  }
}

inline void affine_span(const float* scale, const float* shift, int64_t n, float* y) {
  for (int64_t j = 0; j < n; ++j) y[j] = y[j] * scale[j] + shift[j];
}

// Negative values become zero; NaN and -0 stay.
inline void relu_span(int64_t n, float* y) {
  for (int64_t j = 0; j < n; ++j) y[j] = y[j] < 0.0f ? 0.0f : y[j];
}

// Where and how one row goes.
struct RowTarget {
  uint8_t* to;  // of column 0
  int stored;   // bits that a code takes there
  int shift;
  float qmax;
  float factor;
  const float* scale;       // of column 0, or the only one
  const float* zero_point;  // likewise
  bool per_column;
};

inline RowTarget row_target(const FusedOutput& o, int64_t num_cols, int64_t row) {
  const int bits = o.widths != nullptr ? o.widths[row] : o.bits;
  const int stored = o.widths != nullptr && o.position == nullptr ? 8 : bits;
  const int64_t place = o.position != nullptr ? o.position[row] : row;
  const int64_t begin = o.position != nullptr ? o.bucket_begin[bits] : 0;
  const int shift = o.shift != nullptr ? o.shift[row] : 0;
  // A power of two: x / (s 2^e) is (x 2^-e) / s.
  const float power = __builtin_bit_cast(float, static_cast<uint32_t>(127 - shift) << 23);
  const int64_t by_width = o.widths != nullptr ? bits - 1 : 0;
  return {o.packed + begin + place * packed_row_bytes(num_cols, stored),
          stored,
          shift,
          static_cast<float>((1 << bits) - 1),
          (o.row_factor != nullptr ? o.row_factor[row] : 1.0f) * power,
          o.scale + (o.axis == 0 ? row : 0),
          o.zero_point + by_width * (o.axis == 1 ? num_cols : 1),
          o.axis == 1};
}

// Columns [column, column + n) of row `row`; `inverse` is null where spans divide.
template <class I>
inline void pack_floats(I isa, const FusedOutput& o, const float* inverse, int64_t num_cols,
                        int64_t row, int64_t column, int64_t n, const float* y) {
  const RowTarget t = row_target(o, num_cols, row);
  uint8_t* to = t.to + column / 8 * t.stored;
  float own;
  if (o.axis == 0) inverse = exact_inverses(isa, t.scale, t.zero_point, 1, &own);
  if (t.per_column) {
    quantize_packed<true>(isa, y, n, t.factor, t.scale + column, t.zero_point + column, inverse,
                          t.qmax, t.stored, t.shift, to);
  } else {
    quantize_packed<false>(isa, y, n, t.factor, t.scale, t.zero_point, inverse, t.qmax, t.stored,
                           t.shift, to);
  }
}

// exact_inverses of n columns from `column`; not for a scale per row.
template <class I>
inline const float* inverses_of(I isa, const FusedOutput& o, int64_t num_cols, int64_t column,
                                int64_t n, float* room) {
  // Where there is a zero point for every width, the last is the largest.
  const int64_t last = o.widths != nullptr ? 7 : 0;
  if (o.axis != 1) return exact_inverses(isa, o.scale, o.zero_point + last, 1, room);
  return exact_inverses(isa, o.scale + column, o.zero_point + last * num_cols + column, n, room);
}

// The floats of a row, columns [c, c + n), before the affine and the activation.
template <class I>
inline void join_terms(I isa, const FusedArgs& a, const Tile* tiles, int64_t r, int64_t row,
                       int64_t c, int64_t n, float* y, bool padded) {
  for (int i = 0; i < a.num_terms; ++i) {
    const Tile& t = tiles[i];
    int32_t* acc = t.out + (r - t.row_begin) * t.stride + (c - t.col_begin);
    transform_sums(a.terms[i], row, acc, n);
    if (i == 0) {
      rescale_span<false>(isa, a.terms[i].epilogue, row, c, c + n, acc, y, padded);
    } else {
      rescale_span<true>(isa, a.terms[i].epilogue, row, c, c + n, acc, y, padded);
    }
  }
  if (a.own != nullptr) add_own(isa, a, row, c, n, y);
  if (a.mixed != nullptr) combine_span(a.mixed + row * a.num_cols + c, y, n, a.keep, a.teleport);
}

template <class I>
void finish_tile(I isa, const FusedArgs& a, const Tile* tiles) {
  const Tile& t = tiles[0];
  alignas(64) float buffer[kFusedChunk + 16];  // a last vector may begin before its end
  float room[kPrepared][kFusedChunk];
  const float* inverse[kPrepared] = {};
  for (int64_t c = t.col_begin; c < t.col_end; c += kFusedChunk) {
    const int64_t n = t.col_end - c < kFusedChunk ? t.col_end - c : kFusedChunk;
    for (int o = 0; o < a.num_outputs && o < kPrepared; ++o) {
      if (a.outputs[o].axis != 0)
        inverse[o] = inverses_of(isa, a.outputs[o], a.num_cols, c, n, room[o]);
    }
    for (int64_t r = t.row_begin; r < t.row_end; ++r) {
      const int64_t row = a.order != nullptr ? a.order[r] : r;
      const bool padded = a.num_outputs > 0;
      float* y = padded ? buffer : a.floats + (row - a.first_row) * a.num_cols + c;
      join_terms(isa, a, tiles, r, row, c, n, y, padded);
      if (a.post_scale != nullptr) affine_span(a.post_scale + c, a.post_shift + c, n, y);
      if (a.relu) relu_span(n, y);
      for (int o = 0; o < a.num_outputs; ++o) {
        pack_floats(isa, a.outputs[o], o < kPrepared ? inverse[o] : nullptr, a.num_cols, row, c, n,
                    y);
      }
    }
  }
}

inline bool all_finite(const float* x, int64_t n) {
  uint32_t outside = 0;
  for (int64_t j = 0; j < n; ++j) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, x[j]) & 0x7fffffffu;
    outside |= magnitude >= 0x7f800000u ? 1u : 0u;
  }
  return outside == 0;
}

template <class I>
void quantize_mixed_rows(I isa, const FusedOutput& o, const float* x, int64_t num_cols,
                         int64_t begin, int64_t end, bool* finite) {
  const auto pack = [&](int64_t row, int64_t c, const float* inverse) {
    const int64_t n = num_cols - c < kFusedChunk ? num_cols - c : kFusedChunk;
    const float* from = x + row * num_cols + c;
    if (finite != nullptr && !all_finite(from, n)) *finite = false;
    pack_floats(isa, o, inverse, num_cols, row, c, n, from);
  };
  if (o.axis == 0) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < num_cols; c += kFusedChunk) pack(row, c, nullptr);
    }
    return;
  }
  float room[kFusedChunk];
  for (int64_t c = 0; c < num_cols; c += kFusedChunk) {
    const int64_t n = num_cols - c < kFusedChunk ? num_cols - c : kFusedChunk;
    const float* inverse = inverses_of(isa, o, num_cols, c, n, room);
    for (int64_t row = begin; row < end; ++row) pack(row, c, inverse);
  }
}

}  // namespace
}  // namespace nodebits
