// What follows the integer sums of a fused operator: epilogues, activation, quantizers, packing,
// row by row while the tile is in the cache. Every step is that of the operator it stands for.
// Included once per level, inside the level's anonymous namespace.

constexpr int64_t kFusedChunk = 512;  // columns at a time; a multiple of 16

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

inline void add_own(const FusedArgs& a, int64_t row, int64_t column, int64_t n, float* y) {
  const RescaleArgs& e = a.terms[0].epilogue;
  uint8_t codes[kFusedChunk];
  const uint8_t* from =
      a.own + row * packed_row_bytes(a.num_cols, a.own_bits) + column / 8 * a.own_bits;
  with_bits(a.own_bits, [&]<int B>() { unpack_codes<B>(from, n, codes); });
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

// Negative values become zero; NaN and -0 stay. `padded` as in rescale_span.
inline void relu_span(int64_t n, float* y, [[maybe_unused]] bool padded) {
#if NODEBITS_AVX512
  by_sixteen(n, padded, [&](int64_t j, __mmask16, __mmask16 written) {
    const __m512 v = _mm512_maskz_loadu_ps(written, y + j);
    const __mmask16 kept = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NLT_UQ);
    if (written == 0xffff) {
      _mm512_storeu_ps(y + j, _mm512_maskz_mov_ps(kept, v));
    } else {
      _mm512_mask_storeu_ps(y + j, written, _mm512_maskz_mov_ps(kept, v));
    }
  });
#else
  for (int64_t j = 0; j < n; ++j) y[j] = y[j] < 0.0f ? 0.0f : y[j];
#endif
}

// Row `row`, columns [column, column + n); `inverse` is null where spans divide.
inline void pack_floats(const FusedOutput& o, const float* inverse, int64_t num_cols, int64_t row,
                        int64_t column, int64_t n, const float* y) {
  const int bits = o.widths != nullptr ? o.widths[row] : o.bits;
  const int stored = o.widths != nullptr && o.position == nullptr ? 8 : bits;
  const int64_t place = o.position != nullptr ? o.position[row] : row;
  const int64_t begin = o.position != nullptr ? o.bucket_begin[bits] : 0;
  uint8_t* to = o.packed + begin + place * packed_row_bytes(num_cols, stored) + column / 8 * stored;
  const int shift = o.shift != nullptr ? o.shift[row] : 0;
  const float qmax = static_cast<float>((1 << bits) - 1);
  // A power of two: x / (s 2^e) is (x 2^-e) / s.
  const float factor = (o.row_factor != nullptr ? o.row_factor[row] : 1.0f) *
                       __builtin_bit_cast(float, static_cast<uint32_t>(127 - shift) << 23);
  const int64_t by_width = o.widths != nullptr ? bits - 1 : 0;
  uint8_t codes[kFusedChunk];
  uint8_t* sink = stored == 8 ? to : codes;
  if (o.axis == 1) {
    quantize_span<true>(y, n, factor, o.scale + column, o.zero_point + by_width * num_cols + column,
                        inverse, qmax, sink, stored != 8, shift);
  } else {
    const float* scale = o.scale + (o.axis == 0 ? row : 0);
    float own;
    if (o.axis == 0) inverse = exact_inverses(scale, o.zero_point + by_width, 1, &own);
    quantize_span<false>(y, n, factor, scale, o.zero_point + by_width, inverse, qmax, sink,
                         stored != 8, shift);
  }
  if (stored != 8) with_bits(stored, [&]<int B>() { pack_codes<B, true>(codes, n, to); });
}

// exact_inverses of up to kFusedChunk columns from `column`; not for a scale per row.
inline const float* inverses_of(const FusedOutput& o, int64_t num_cols, int64_t column,
                                float* room) {
  // Where there is a zero point for every width, the last is the largest.
  const int64_t last = o.widths != nullptr ? 7 : 0;
  if (o.axis != 1) return exact_inverses(o.scale, o.zero_point + last, 1, room);
  const int64_t n = num_cols - column < kFusedChunk ? num_cols - column : kFusedChunk;
  return exact_inverses(o.scale + column, o.zero_point + last * num_cols + column, n, room);
}

void finish_tile(const FusedArgs& a, const Tile* tiles) {
  constexpr int kPrepared = 4;  // outputs whose inverses are at hand; more are rare, and divide
  const Tile& t = tiles[0];
  alignas(64) float buffer[kFusedChunk + 16];  // a last vector may begin before its end
  float room[kPrepared][kFusedChunk];
  const float* inverse[kPrepared] = {};
  for (int64_t c = t.col_begin; c < t.col_end; c += kFusedChunk) {
    const int64_t end = t.col_end - c < kFusedChunk ? t.col_end : c + kFusedChunk;
    const int64_t n = end - c;
    for (int o = 0; o < a.num_outputs && o < kPrepared; ++o) {
      if (a.outputs[o].axis != 0) inverse[o] = inverses_of(a.outputs[o], a.num_cols, c, room[o]);
    }
    for (int64_t r = t.row_begin; r < t.row_end; ++r) {
      const int64_t row = a.order != nullptr ? a.order[r] : r;
      const bool padded = a.num_outputs > 0;
      float* y = padded ? buffer : a.floats + row * a.num_cols + c;
      for (int i = 0; i < a.num_terms; ++i) {
        int32_t* acc = tiles[i].out + (r - t.row_begin) * tiles[i].stride + (c - t.col_begin);
        transform_sums(a.terms[i], row, acc, n);
        if (i == 0) {
          rescale_span<false>(a.terms[i].epilogue, row, c, end, acc, y, padded);
        } else {
          rescale_span<true>(a.terms[i].epilogue, row, c, end, acc, y, padded);
        }
      }
      if (a.own != nullptr) add_own(a, row, c, n, y);
      if (a.relu) relu_span(n, y, padded);
      for (int o = 0; o < a.num_outputs; ++o) {
        pack_floats(a.outputs[o], o < kPrepared ? inverse[o] : nullptr, a.num_cols, row, c, n, y);
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

void quantize_mixed_rows(const FusedOutput& o, const float* x, int64_t num_cols, int64_t begin,
                         int64_t end, bool* finite) {
  const auto pack = [&](int64_t row, int64_t c, const float* inverse) {
    const int64_t n = num_cols - c < kFusedChunk ? num_cols - c : kFusedChunk;
    const float* from = x + row * num_cols + c;
    if (finite != nullptr && !all_finite(from, n)) *finite = false;
    pack_floats(o, inverse, num_cols, row, c, n, from);
  };
  if (o.axis == 0) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < num_cols; c += kFusedChunk) pack(row, c, nullptr);
    }
    return;
  }
  float room[kFusedChunk];
  for (int64_t c = 0; c < num_cols; c += kFusedChunk) {
    const float* inverse = inverses_of(o, num_cols, c, room);
    for (int64_t row = begin; row < end; ++row) pack(row, c, inverse);
  }
}
