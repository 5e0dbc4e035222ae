// The epilogue: ((float(acc) - row_offset * col_offset) * col_scale) * row_scale + bias, in that
// order.
#pragma once

#include "contract/epilogues.h"

namespace nodebits {
namespace {

// Columns [begin, end) of row i, whose sums start at `acc`; added to `out` where kAdd. `padded`:
// all lanes of the last vector may be written to `out`.
template <bool kAdd, class I>
inline void rescale_span(I, const RescaleArgs& a, int64_t i, int64_t begin, int64_t end,
                         const int32_t* acc, float* out, bool /*padded*/) {
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
    c = stop;
  }
}

template <class I>
void rescale_rows(I isa, const RescaleArgs& a, int64_t begin, int64_t end) {
  if (a.num_cols == 0) return;
  for (int64_t i = begin; i < end; ++i) {
    rescale_span<false>(isa, a, i, 0, a.num_cols, a.acc + i * a.num_cols, a.out + i * a.num_cols,
                        false);
  }
}

}  // namespace
}  // namespace nodebits
