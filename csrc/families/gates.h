// Functions of codes at an edge. Rows are unpacked into bytes, and loops over columns do the rest.
#pragma once

#include "contract/gates.h"
#include "families/pairs.h"

namespace nodebits {
namespace {

template <class I>
void modulated_sum(I isa, const ModulatedArgs& a, int64_t begin, int64_t end,
                   const GateRoom& room) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  int32_t* __restrict sums = room.sums;
  int32_t* __restrict number = room.number;
  float* __restrict slope = room.slope;
  float* __restrict offset = room.offset;
  for (int64_t i = begin; i < end; ++i) {
    const float *beta = a.film + i * 2 * n, *gamma = beta + n;
    for (int64_t c = 0; c < n; ++c) {
      slope[c] = gamma[c] * a.scale[c];
      offset[c] = beta[c] - slope[c] * a.zero_point[c];
      sums[c] = number[c] = 0;
    }
    for (int64_t e = a.indptr[i]; e < a.indptr[i + 1]; ++e) {
      fetch_ahead(a.source, EdgeFields{}, a.indices, e, last, n);
      const uint8_t* u = row_codes(isa, a.source, a.indices[e], n, room.source);
      for (int64_t c = 0; c < n; ++c) {
        const int32_t code = u[c];
        const float y = slope[c] * static_cast<float>(code) + offset[c];
        const int32_t above = y > 0.0f ? 1 : 0;
        sums[c] += y > 0.0f ? code : 0;
        number[c] += above;
      }
    }
    float* y = a.out + i * n;
    const float factor = a.row_scale == nullptr ? 1.0f : a.row_scale[i];
    for (int64_t c = 0; c < n; ++c) {
      const float codes = slope[c] * static_cast<float>(sums[c]);
      y[c] = (codes + offset[c] * static_cast<float>(number[c])) * factor;
    }
  }
}

// A target's codes, which are in the cache as long as its edges are.
inline void keep_codes(const uint8_t* codes, int64_t n, int16_t* kept) {
  for (int64_t c = 0; c < n; ++c) kept[c] = codes[c];
}

// kLargest is a constant, so that the loops over columns hold no choice.
template <bool kLargest>
inline void add_product(int32_t& kept, int32_t product) {
  if constexpr (kLargest)
    kept = product > kept ? product : kept;
  else
    kept += product;
}

template <bool kLargest, class I>
void gated_products(I isa, const GatedProductArgs& a, int64_t begin, int64_t end,
                    const GateRoom& room) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  int32_t* sums = room.sums;
  const bool edges = a.edge.packed != nullptr;
  for (int64_t i = begin; i < end; ++i) {
    keep_codes(row_codes(isa, a.target, i, n, room.source), n, room.mine);
    keep_codes(row_codes(isa, a.value_target, i, n, room.source), n, room.value_mine);
    for (int64_t c = 0; c < n; ++c) sums[c] = 0;
    for (int64_t e = a.indptr[i]; e < a.indptr[i + 1]; ++e) {
      fetch_ahead(a.source, EdgeFields{}, a.indices, e, last, n);
      fetch_ahead(a.value_source, EdgeFields{}, a.indices, e, last, n);
      const uint8_t* u = row_codes(isa, a.source, a.indices[e], n, room.source);
      const uint8_t* v = row_codes(isa, a.value_source, a.indices[e], n, room.value);
      if (edges) {
        const int64_t at = a.order == nullptr ? e : a.order[e];
        const uint8_t* p = row_codes(isa, a.edge, at, n, room.edge);
        const uint8_t* q = row_codes(isa, a.value_edge, at, n, room.value_edge);
        for (int64_t c = 0; c < n; ++c)
          add_product<kLargest>(sums[c], a.gates[u[c] + room.mine[c] + p[c]] *
                                             a.values[v[c] + room.value_mine[c] + q[c]]);
      } else {
        for (int64_t c = 0; c < n; ++c)
          add_product<kLargest>(sums[c],
                                a.gates[u[c] + room.mine[c]] * a.values[v[c] + room.value_mine[c]]);
      }
    }
    float* y = a.out + i * n;
    for (int64_t c = 0; c < n; ++c) y[c] = static_cast<float>(sums[c]) * a.scale;
  }
}

template <class I>
void gated_product(I isa, const GatedProductArgs& a, int64_t begin, int64_t end,
                   const GateRoom& room) {
  if (a.largest)
    gated_products<true>(isa, a, begin, end, room);
  else
    gated_products<false>(isa, a, begin, end, room);
}

}  // namespace
}  // namespace nodebits
