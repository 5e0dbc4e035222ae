// What a propagation step does with a summed row: the affine combination of APPNP, and the
// correction of a constrained step.
#pragma once

#include "contract/propagation.h"

namespace nodebits {
namespace {

inline void combine_span(const float* x, float* y, int64_t n, float keep, float teleport) {
  for (int64_t j = 0; j < n; ++j) y[j] = y[j] * keep + x[j] * teleport;
}

inline void change_span(const float* stepped, const float* state, float* change, int64_t n) {
  for (int64_t j = 0; j < n; ++j) change[j] = stepped[j] - state[j];
}

inline void correct_span(const CorrectArgs& a, int64_t n) {
  if (a.laplacian) {
    for (int64_t j = 0; j < n; ++j) {
      a.state[j] = a.stepped[j] + (a.stepped[j] - a.state[j] - a.spread[j]) * a.coefficient;
    }
  } else {
    for (int64_t j = 0; j < n; ++j) {
      a.state[j] = a.stepped[j] + a.spread[j] * a.coefficient;
    }
  }
}

// Narrow rows. Up to 16 columns whose table fits the cache next to the core are not bound by bytes
// but by work per edge and per row: codes then take a byte each, a row is one vector of W lanes, an
// edge is one load and one addition. Sums of b-bit codes stay in bytes for 255 / (2^b - 1) edges,
// then in 16 bits for 257 times as many, and the row's epilogue happens in registers. Wider rows
// lose more in the epilogue than they gain.

template <class T, int W>
using Lanes __attribute__((vector_size(sizeof(T) * W))) = T;

template <class T, int W>
inline Lanes<T, W> load_lanes(const T* p) {
  Lanes<T, W> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <int W, class Index>
inline Lanes<int32_t, W> lane_sum(const uint8_t* table, const Index* edges, int64_t n,
                                  int64_t in_bytes) {
  const auto row = [&](int64_t e) {
    return load_lanes<uint8_t, W>(table + static_cast<int64_t>(edges[e]) * W);
  };
  if (n <= in_bytes) {
    Lanes<uint8_t, W> bytes = {};
    for (int64_t e = 0; e < n; ++e) bytes += row(e);
    return __builtin_convertvector(bytes, Lanes<int32_t, W>);
  }
  Lanes<int32_t, W> total = {};
  for (int64_t e = 0; e < n;) {
    Lanes<uint16_t, W> half = {};
    if (in_bytes == 1) {
      const int64_t stop = e + 257 < n ? e + 257 : n;
      for (; e < stop; ++e) half += __builtin_convertvector(row(e), Lanes<uint16_t, W>);
    } else {
      for (int k = 0; k < 257 && e < n; ++k) {
        const int64_t stop = e + in_bytes < n ? e + in_bytes : n;
        Lanes<uint8_t, W> bytes = {};
        for (; e < stop; ++e) bytes += row(e);
        half += __builtin_convertvector(bytes, Lanes<uint16_t, W>);
      }
    }
    total += __builtin_convertvector(half, Lanes<int32_t, W>);
  }
  return total;
}

template <int W>
inline void lane_codes(Lanes<float, W> v, const float* scale, const float* made_with, float factor,
                       float qmax, uint8_t* to) {
  v = v * factor / load_lanes<float, W>(scale) + load_lanes<float, W>(made_with);
  v = v > 0.0f ? v : Lanes<float, W>{};
  v = v < qmax ? v : qmax - Lanes<float, W>{};
  v += 8388608.0f;
  Lanes<uint32_t, W> word;
  __builtin_memcpy(&word, &v, sizeof word);
  const Lanes<uint8_t, W> code = __builtin_convertvector(word, Lanes<uint8_t, W>);
  __builtin_memcpy(to, &code, sizeof code);
}

template <int W, class Index>
void lane_rows_as(const LaneArgs& a, const Index* indices, int64_t begin, int64_t end) {
  const float qmax = static_cast<float>((1 << a.next_bits) - 1);
  const int64_t in_bytes = a.table != nullptr ? 255 / ((1 << a.bits) - 1) : 1;
  for (int64_t i = begin; i < end; ++i) {
    const float factor = a.factor != nullptr ? a.factor[i] : 1.0f;
    Lanes<float, W> y = load_lanes<float, W>(a.x + i * W);
    if (a.table != nullptr) {
      const int64_t first = a.indptr[i], n = a.indptr[i + 1] - first;
      const auto sum = lane_sum<W>(a.table, indices + first, n, in_bytes);
      const Lanes<float, W> x = y;
      y = __builtin_convertvector(sum, Lanes<float, W>) -
          static_cast<float>(n) * load_lanes<float, W>(a.zero_point);
      y = y * load_lanes<float, W>(a.scale) * factor;
      y = y * a.keep + x * a.teleport;
    }
    if (a.out != nullptr) {
      __builtin_memcpy(a.out + i * a.num_cols, &y, static_cast<size_t>(a.num_cols) * sizeof(float));
    } else {
      lane_codes<W>(y, a.next_scale, a.next_made_with, factor, qmax, a.next + i * W);
    }
  }
}

template <int W>
void lane_rows_of(const LaneArgs& a, int64_t begin, int64_t end) {
  if (a.short_indices != nullptr) {
    lane_rows_as<W>(a, a.short_indices, begin, end);
  } else {
    lane_rows_as<W>(a, a.indices, begin, end);
  }
}

inline void lane_rows(const LaneArgs& a, int64_t begin, int64_t end) {
  switch (a.lanes) {
    case 4:
      return lane_rows_of<4>(a, begin, end);
    case 8:
      return lane_rows_of<8>(a, begin, end);
    default:
      return lane_rows_of<16>(a, begin, end);
  }
}

}  // namespace
}  // namespace nodebits
