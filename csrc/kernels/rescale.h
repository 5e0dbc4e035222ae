// The epilogue: ((float(acc) - row_offset * col_offset) * col_scale) * row_scale + bias, in that
// order. Included once per level, inside the level's anonymous namespace.

void rescale_rows(const RescaleArgs& a, int64_t begin, int64_t end) {
  const int64_t width = a.heads > 0 ? a.num_cols / a.heads : 0;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t h = 0; h < a.heads; ++h) {
      const int64_t first = h * width;
      const float row_offset = a.row_offset != nullptr ? a.row_offset[i * a.heads + h] : 1.0f;
      const float row_scale = a.row_scale != nullptr ? a.row_scale[i * a.heads + h] : 1.0f;
      const int32_t* acc = a.acc + i * a.num_cols + first;
      float* out = a.out + i * a.num_cols + first;
      const float* col_scale = a.col_scale + first;
      const float* bias = a.bias + first;
      if (a.col_offset != nullptr) {
        const float* col_offset = a.col_offset + first;
        for (int64_t j = 0; j < width; ++j) {
          const float centred = static_cast<float>(acc[j]) - row_offset * col_offset[j];
          out[j] = centred * col_scale[j] * row_scale + bias[j];
        }
      } else {
        for (int64_t j = 0; j < width; ++j) {
          out[j] = static_cast<float>(acc[j]) * col_scale[j] * row_scale + bias[j];
        }
      }
    }
  }
}
