// The epilogue: ((float(acc) - row_offset * col_offset) * col_scale) * row_scale + bias, in that
// order.
#pragma once

#include "contract/epilogues.h"

namespace nodebits {
namespace {

// Columns [begin, end) of row i, whose sums start at `acc`; added to `out` where kAdd. `padded`:
// all lanes of the last vector may be written to `out`.
template <bool kAdd, class I, class T>
inline void rescale_span(I, const RescaleArgs& a, int64_t i, int64_t begin, int64_t end,
                         const T* acc, float* out, bool /*padded*/) {
  const int64_t width = a.num_cols / a.heads;
  for (int64_t c = begin; c < end;) {
    const int64_t h = a.heads == 1 ? 0 : c / width;
    const int64_t stop = a.heads == 1 || (h + 1) * width > end ? end : (h + 1) * width;
    const float row_offset = a.row_offset != nullptr ? a.row_offset[i * a.heads + h] : 1.0f;
    const float row_scale = a.row_scale != nullptr ? a.row_scale[i * a.heads + h] : 1.0f;
    const T* sums = acc + (c - begin);
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

template <class I>
void rescale_float_rows(I isa, const RescaleFloatsArgs& a, int64_t begin, int64_t end) {
  const int64_t cols = a.epilogue.num_cols;
  for (int64_t i = begin; cols > 0 && i < end; ++i) {
    rescale_span<false>(isa, a.epilogue, i, 0, cols, a.acc + i * cols, a.out + i * cols, false);
  }
}

// Gradients of columns [begin, end) of row i, in the order in which the operations are undone.
template <bool kOffset>
inline void rescale_backward_span(const RescaleFloatsArgs& a, int64_t i, int64_t h, int64_t begin,
                                  int64_t end, double* __restrict to_scale,
                                  double* __restrict to_offset, double* __restrict to_bias) {
  const RescaleArgs& of = a.epilogue;
  const float* __restrict grad = a.grad + i * of.num_cols;
  const float* __restrict acc = a.acc + i * of.num_cols;
  const float* __restrict scale = of.col_scale;
  float* __restrict out = a.out + i * of.num_cols;
  const float row_scale = of.row_scale != nullptr ? of.row_scale[i * of.heads + h] : 1.0f;
  const float row_offset = of.row_offset != nullptr ? of.row_offset[i * of.heads + h] : 1.0f;
  for (int64_t c = begin; c < end; ++c) {
    const float before = grad[c] * row_scale;  // of ((acc - offsets) * col_scale)
    const float made = before * scale[c];
    out[c] = made;
    if constexpr (kOffset) {
      to_scale[c] += static_cast<double>(before * (acc[c] - row_offset * of.col_offset[c]));
      to_offset[c] -= static_cast<double>(made * row_offset);
    } else {
      to_scale[c] += static_cast<double>(before * acc[c]);
    }
    to_bias[c] += static_cast<double>(grad[c]);
  }
}

inline void rescale_backward_rows(const RescaleFloatsArgs& a, int64_t begin, int64_t end,
                                  double* sums) {
  const RescaleArgs& of = a.epilogue;
  const int64_t cols = of.num_cols, width = cols / of.heads;
  const auto span =
      of.col_offset != nullptr ? rescale_backward_span<true> : rescale_backward_span<false>;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t h = 0; h < of.heads; ++h)
      span(a, i, h, h * width, (h + 1) * width, sums, sums + cols, sums + 2 * cols);
}

}  // namespace
}  // namespace nodebits
