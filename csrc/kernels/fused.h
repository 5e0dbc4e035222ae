// What follows the integer sums of a fused operator: epilogues, activation, quantizers, packing,
// row by row while the tile is in the cache. Every step is that of the operator it stands for.
// Included once per level, inside the level's anonymous namespace.

constexpr int64_t kFusedChunk = 512;  // columns at a time; a multiple of 8

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

inline void pack_floats(const FusedOutput& o, int64_t num_cols, int64_t row, int64_t column,
                        int64_t n, const float* y) {
  const float qmax = static_cast<float>((1 << o.bits) - 1);
  const float factor = o.row_factor != nullptr ? o.row_factor[row] : 1.0f;
  uint8_t* to = o.packed + row * packed_row_bytes(num_cols, o.bits) + column / 8 * o.bits;
  uint8_t codes[kFusedChunk];
  uint8_t* sink = o.bits == 8 ? to : codes;
  if (o.per_column) {
    quantize_span<true>(y, n, factor, o.scale + column, o.zero_point + column, qmax, sink);
  } else {
    quantize_span<false>(y, n, factor, o.scale, o.zero_point, qmax, sink);
  }
  if (o.bits != 8) with_bits(o.bits, [&]<int B>() { pack_codes<B>(codes, n, to); });
}

void finish_tile(const FusedArgs& a, const Tile* tiles) {
  const Tile& t = tiles[0];
  alignas(64) float buffer[kFusedChunk];
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    for (int64_t c = t.col_begin; c < t.col_end; c += kFusedChunk) {
      const int64_t end = t.col_end - c < kFusedChunk ? t.col_end : c + kFusedChunk;
      const int64_t n = end - c;
      float* y = a.num_outputs == 0 ? a.floats + row * a.num_cols + c : buffer;
      for (int i = 0; i < a.num_terms; ++i) {
        int32_t* acc = tiles[i].out + (row - t.row_begin) * tiles[i].stride + (c - t.col_begin);
        transform_sums(a.terms[i], row, acc, n);
        if (i == 0) {
          rescale_span<false>(a.terms[i].epilogue, row, c, end, acc, y);
        } else {
          rescale_span<true>(a.terms[i].epilogue, row, c, end, acc, y);
        }
      }
      if (a.own != nullptr) add_own(a, row, c, n, y);
      if (a.relu) {
        for (int64_t j = 0; j < n; ++j) y[j] = y[j] < 0.0f ? 0.0f : y[j];  // keeps NaN and -0
      }
      for (int o = 0; o < a.num_outputs; ++o) pack_floats(a.outputs[o], a.num_cols, row, c, n, y);
    }
  }
}
