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

inline void pack_floats(const FusedOutput& o, const float* inverse, int64_t num_cols, int64_t row,
                        int64_t column, int64_t n, const float* y) {
  const float qmax = static_cast<float>((1 << o.bits) - 1);
  const float factor = o.row_factor != nullptr ? o.row_factor[row] : 1.0f;
  uint8_t* to = o.packed + row * packed_row_bytes(num_cols, o.bits) + column / 8 * o.bits;
  uint8_t codes[kFusedChunk];
  uint8_t* sink = o.bits == 8 ? to : codes;
  if (o.per_column) {
    quantize_span<true>(y, n, factor, o.scale + column, o.zero_point + column, inverse, qmax, sink,
                        o.bits != 8);
  } else {
    quantize_span<false>(y, n, factor, o.scale, o.zero_point, inverse, qmax, sink, o.bits != 8);
  }
  if (o.bits != 8) with_bits(o.bits, [&]<int B>() { pack_codes<B, true>(codes, n, to); });
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
      const FusedOutput& to = a.outputs[o];
      const int64_t at = to.per_column ? c : 0;
      inverse[o] =
          exact_inverses(to.scale + at, to.zero_point + at, to.per_column ? n : 1, room[o]);
    }
    for (int64_t row = t.row_begin; row < t.row_end; ++row) {
      const bool padded = a.num_outputs > 0;
      float* y = padded ? buffer : a.floats + row * a.num_cols + c;
      for (int i = 0; i < a.num_terms; ++i) {
        int32_t* acc = tiles[i].out + (row - t.row_begin) * tiles[i].stride + (c - t.col_begin);
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
