// The epilogue: ((float(acc) - row_offset * col_offset) * col_scale) * row_scale + bias, in that
// order. Included once per level, inside the level's anonymous namespace.

// Columns [begin, end) of row i, whose sums start at `acc`; added to `out` where kAdd. `padded`:
// all lanes of the last vector may be written to `out`.
template <bool kAdd>
inline void rescale_span(const RescaleArgs& a, int64_t i, int64_t begin, int64_t end,
                         const int32_t* acc, float* out, [[maybe_unused]] bool padded) {
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
#if NODEBITS_AVX512
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
#else
    if (a.col_offset != nullptr) {
      const float* col_offset = a.col_offset + c;
      for (int64_t j = 0; j < n; ++j) {
        const float centred = static_cast<float>(sums[j]) - row_offset * col_offset[j];
        const float y = centred * col_scale[j] * row_scale + bias[j];
        to[j] = kAdd ? to[j] + y : y;
      }
    } else {
      for (int64_t j = 0; j < n; ++j) {
        const float y = static_cast<float>(sums[j]) * col_scale[j] * row_scale + bias[j];
        to[j] = kAdd ? to[j] + y : y;
      }
    }
#endif
    c = stop;
  }
}

void rescale_rows(const RescaleArgs& a, int64_t begin, int64_t end) {
  if (a.num_cols == 0) return;
  for (int64_t i = begin; i < end; ++i) {
    rescale_span<false>(a, i, 0, a.num_cols, a.acc + i * a.num_cols, a.out + i * a.num_cols, false);
  }
}
