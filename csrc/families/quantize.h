// Quantization: float rows to codes, packed or as float32, and the gradients of that step.
#pragma once

#include "contract/rows.h"
#include "families/pack.h"

namespace nodebits {
namespace {

// Adding 2^23 to a float in [0, 2^22] rounds it half to even in the addition itself and leaves the
// integer in the low bits of the word. Both comparisons put NaN on the side of code 0.
inline float rounded_code(float v, float qmax) {
  v = v > 0.0f ? v : 0.0f;
  v = v < qmax ? v : qmax;
  return v + 8388608.0f;
}

// Where a level may do a division as multiplications that give its bits, 1 / scale of every column
// goes to `inverse`, which is returned; elsewhere the result is null, and spans divide.
template <class I>
inline const float* exact_inverses(I, const float* /*scale*/, const float* /*zero_point*/,
                                   int64_t /*n*/, float* /*inverse*/) {
  return nullptr;
}

// n values to packed codes of `bits`, shifted left by `shift` (8 bits only). `inverse`: what
// exact_inverses gave for the same columns.
template <bool kPerColumn, class I>
inline void quantize_packed(I isa, const float* x, int64_t n, float factor, const float* scale,
                            const float* zero_point, const float* /*inverse*/, float qmax, int bits,
                            int shift, uint8_t* to) {
  constexpr int64_t kCodes = 512;  // at a time; a multiple of 8
  uint8_t codes[kCodes];
  for (int64_t c = 0; c < n; c += kCodes) {
    const int64_t count = n - c < kCodes ? n - c : kCodes;
    uint8_t* sink = bits == 8 ? to + c : codes;
    const float s0 = *scale, z0 = *zero_point;
    for (int64_t j = 0; j < count; ++j) {
      const float s = kPerColumn ? scale[c + j] : s0;
      const float z = kPerColumn ? zero_point[c + j] : z0;
      const float v = x[c + j] * factor / s + z;
      const uint32_t code = __builtin_bit_cast(uint32_t, rounded_code(v, qmax));
      sink[j] = static_cast<uint8_t>(code << shift);
    }
    if (bits != 8)
      with_bits(bits, [&]<int B>() { pack_codes<B, true>(isa, codes, count, to + c / 8 * B); });
  }
}

template <bool kPerColumn, class I>
inline void quantize_float_span(I, const float* x, int64_t n, float factor, const float* scale,
                                const float* zero_point, const float* /*inverse*/, float qmax,
                                float* out) {
  const float s0 = *scale;
  const float z0 = *zero_point;
  for (int64_t j = 0; j < n; ++j) {
    const float s = kPerColumn ? scale[j] : s0;
    const float z = kPerColumn ? zero_point[j] : z0;
    out[j] = rounded_code(x[j] * factor / s + z, qmax) - 8388608.0f;
  }
}

template <bool kPerColumn, class I>
void quantize_rows_as(I isa, const QuantizeArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kChunk = 1024;  // columns at a time; a multiple of 64
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  const int64_t per_row = a.axis == 0 ? 1 : 0;
  const int64_t stride = packed_row_bytes(a.num_cols, a.bits);
  float room[kPerColumn ? kChunk : 1];
  for (int64_t c = 0; c < a.num_cols; c += kChunk) {
    const int64_t n = a.num_cols - c < kChunk ? a.num_cols - c : kChunk;
    const float* inverse = nullptr;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = kPerColumn ? c : i * per_row;
      if (i == begin || per_row != 0)
        inverse = exact_inverses(isa, a.scale + at, a.zero_point + at, kPerColumn ? n : 1, room);
      const float factor = a.row_factor != nullptr ? a.row_factor[i] : 1.0f;
      const float* x = a.x + i * a.num_cols + c;
      if (a.codes != nullptr) {
        quantize_float_span<kPerColumn>(isa, x, n, factor, a.scale + at, a.zero_point + at, inverse,
                                        qmax, a.codes + i * a.num_cols + c);
      } else {
        quantize_packed<kPerColumn>(isa, x, n, factor, a.scale + at, a.zero_point + at, inverse,
                                    qmax, a.bits, 0, a.packed + i * stride + c / 8 * a.bits);
      }
    }
  }
}

template <class I>
void quantize_rows(I isa, const QuantizeArgs& a, int64_t begin, int64_t end) {
  if (a.num_cols == 0) return;
  if (a.axis == 1) {
    quantize_rows_as<true>(isa, a, begin, end);
  } else {
    quantize_rows_as<false>(isa, a, begin, end);
  }
}

// Gradient mask of one value: .x for grad_x, .parameter for the scale and the zero point.
template <Gradient kMode>
inline void quantize_masks(float v, float qmax, float* to_x, float* to_parameter) {
  if constexpr (kMode == Gradient::kStrict) {
    const float code = rounded_code(v, qmax) - 8388608.0f;
    *to_x = (code > 0.0f) & (code < qmax) ? 1.0f : 0.0f;
    *to_parameter = *to_x;
  } else {
    *to_parameter = (v >= 0.0f) & (v <= qmax) ? 1.0f : 0.0f;
    *to_x = kMode == Gradient::kPass ? 1.0f : *to_parameter;
  }
}

// Eight running sums, an order that never changes, of terms that are floats.
struct RunningSums {
  double parts[8] = {};

  void add(const float* terms, int64_t n) {
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
      for (int l = 0; l < 8; ++l) parts[l] += static_cast<double>(terms[k + l]);
    }
    for (int l = 0; k + l < n; ++l) parts[l] += static_cast<double>(terms[k + l]);
  }

  double total() const {
    double sum = 0.0;
    for (int l = 0; l < 8; ++l) sum += parts[l];
    return sum;
  }
};

// Of rows with one scale: the gradient of x, and the terms of those of scale (times minus the
// scale) and zero point.
template <Gradient kMode>
inline void quantize_backward_row(const QuantizeBackwardArgs& a, int64_t i, float s, float z,
                                  RunningSums* to_scale, RunningSums* to_zero) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  const float* __restrict g = a.grad + i * a.num_cols;
  const float* __restrict x = a.x + i * a.num_cols;
  float* __restrict gx = a.grad_x + i * a.num_cols;
  constexpr int64_t kChunk = 256;
  for (int64_t j0 = 0; j0 < a.num_cols; j0 += kChunk) {
    const int64_t n = a.num_cols - j0 < kChunk ? a.num_cols - j0 : kChunk;
    float scale_terms[kChunk], zero_terms[kChunk];
    for (int64_t k = 0; k < n; ++k) {
      const float ratio = x[j0 + k] / s;
      const float up = g[j0 + k];
      float to_x, to_parameter;
      quantize_masks<kMode>(ratio + z, qmax, &to_x, &to_parameter);
      const float made = up / s;
      gx[j0 + k] = to_x != 0.0f ? made : 0.0f;
      scale_terms[k] = to_parameter != 0.0f ? up * ratio : 0.0f;
      zero_terms[k] = to_parameter != 0.0f ? up : 0.0f;
    }
    to_scale->add(scale_terms, n);
    to_zero->add(zero_terms, n);
  }
}

// Of rows with a scale for every column; `scale_sum` is minus the sum times the scale.
template <Gradient kMode>
inline void quantize_backward_columns(const QuantizeBackwardArgs& a, int64_t i,
                                      double* __restrict scale_sum,
                                      double* __restrict zero_point_sum) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  const float* __restrict g = a.grad + i * a.num_cols;
  const float* __restrict x = a.x + i * a.num_cols;
  float* __restrict gx = a.grad_x + i * a.num_cols;
  for (int64_t j = 0; j < a.num_cols; ++j) {
    const float s = a.scale[j], ratio = x[j] / s;
    float to_x, to_parameter;
    quantize_masks<kMode>(ratio + a.zero_point[j], qmax, &to_x, &to_parameter);
    const float made = g[j] / s, term = g[j] * ratio;
    gx[j] = to_x != 0.0f ? made : 0.0f;
    scale_sum[j] += static_cast<double>(to_parameter != 0.0f ? term : 0.0f);
    zero_point_sum[j] += static_cast<double>(to_parameter != 0.0f ? g[j] : 0.0f);
  }
}

template <Gradient kMode>
void quantize_backward_as(const QuantizeBackwardArgs& a, int64_t begin, int64_t end,
                          double* scale_sum, double* zero_point_sum) {
  if (a.axis == 1) {
    for (int64_t i = begin; i < end; ++i)
      quantize_backward_columns<kMode>(a, i, scale_sum, zero_point_sum);
    for (int64_t j = 0; j < a.num_cols; ++j) scale_sum[j] /= -static_cast<double>(a.scale[j]);
    return;
  }
  RunningSums to_scale, to_zero;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t at = a.axis == 0 ? i : 0;
    const float s = a.scale[at];
    quantize_backward_row<kMode>(a, i, s, a.zero_point[at], &to_scale, &to_zero);
    if (a.axis == 0) {
      a.grad_scale[i] = static_cast<float>(to_scale.total() / -static_cast<double>(s));
      a.grad_zero_point[i] = static_cast<float>(to_zero.total());
      to_scale = to_zero = {};
    }
  }
  if (a.axis == 0) return;
  *scale_sum = to_scale.total() / -static_cast<double>(*a.scale);
  *zero_point_sum = to_zero.total();
}

inline void quantize_backward_rows(const QuantizeBackwardArgs& a, int64_t begin, int64_t end,
                                   double* scale_sum, double* zero_point_sum) {
  switch (a.mode) {
    case Gradient::kClip:
      return quantize_backward_as<Gradient::kClip>(a, begin, end, scale_sum, zero_point_sum);
    case Gradient::kPass:
      return quantize_backward_as<Gradient::kPass>(a, begin, end, scale_sum, zero_point_sum);
    default:
      return quantize_backward_as<Gradient::kStrict>(a, begin, end, scale_sum, zero_point_sum);
  }
}

}  // namespace
}  // namespace nodebits
