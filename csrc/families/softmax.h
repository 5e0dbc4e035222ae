// Edge softmax: integer numerators rne(exp(e - max_row) * qmax) and their row sums.
#pragma once

#include "contract/exponential.h"
#include "contract/products.h"

namespace nodebits {
namespace {

// Leaky ReLU of a sum of both ends.
inline float edge_score(float sum, float slope) {
  const float e = sum > 0.0f ? sum : sum * slope;
  return e == e ? e : -__builtin_inff();  // NaN weighs nothing
}

constexpr int64_t kGroup = 16;

// f(k) for k < n, in whole groups: what the compiler leaves of a loop over vectors is one value at
// a time, which for a few edges takes longer than all the rest.
template <class F>
inline void in_groups(int64_t n, const F& f) {
  for (int64_t k = 0; k < n; k += kGroup) {
    for (int64_t l = k; l < k + kGroup; ++l) f(l);
  }
}

// exp(t) * qmax rounded, for t <= 0; NaN (an infinite row maximum) becomes exp(-87), code 0.
inline uint8_t softmax_code(float t, float qmax) {
  float v = exp_nonpositive(t) * qmax;
  v = v < qmax ? v : qmax;
  return static_cast<uint8_t>(__builtin_bit_cast(uint32_t, v + 8388608.0f));
}

// kHeads heads handled together, or `heads` where kHeads is 0: loops over a known number of heads
// unroll, and a runtime count of eight costs more than the arithmetic.
template <int kHeads>
inline void edge_softmax_row(const SoftmaxArgs& a, int64_t i, int64_t h0, int64_t heads,
                             float qmax) {
  constexpr int64_t kChunk = 1024;  // scores held until the exponential; whole groups
  constexpr int64_t kMost = kHeads > 0 ? kHeads : 64;
  const int64_t n = kHeads > 0 ? kHeads : heads;
  const int64_t from = a.indptr[i];
  const int64_t to = a.indptr[i + 1];
  const int32_t* indices = a.indices;
  float dst[kMost], top[kMost];
  int32_t sum[kMost];
  for (int64_t h = 0; h < n; ++h) {
    dst[h] = a.score_dst == nullptr ? 0.0f : a.score_dst[i * a.heads + h0 + h];
    top[h] = -__builtin_inff();
    sum[h] = 0;
  }
  float t[kChunk + kGroup];
  uint8_t code[kChunk];
  const int64_t edges_per_chunk = kChunk / n;
  const bool one_chunk = to - from <= edges_per_chunk;
  const auto gather = [&](int64_t e0, int64_t edges) {
    for (int64_t e = 0; e < edges; ++e) {
      const int64_t row =
          indices == nullptr ? e0 + e - a.first_edge : static_cast<int64_t>(indices[e0 + e]);
      const float* src = a.score_src + row * a.heads + h0;
      for (int64_t h = 0; h < n; ++h) t[e * n + h] = src[h] + dst[h];
    }
    __builtin_memset(t + edges * n, 0, kGroup * sizeof(float));
    in_groups(edges * n, [&](int64_t k) { t[k] = edge_score(t[k], a.negative_slope); });
  };
  for (int64_t e0 = from; e0 < to; e0 += edges_per_chunk) {
    const int64_t edges = to - e0 < edges_per_chunk ? to - e0 : edges_per_chunk;
    gather(e0, edges);
    for (int64_t e = 0; e < edges; ++e) {
      for (int64_t h = 0; h < n; ++h) top[h] = t[e * n + h] > top[h] ? t[e * n + h] : top[h];
    }
  }
  for (int64_t e0 = from; e0 < to; e0 += edges_per_chunk) {
    const int64_t edges = to - e0 < edges_per_chunk ? to - e0 : edges_per_chunk;
    if (!one_chunk) gather(e0, edges);
    for (int64_t e = 0; e < edges; ++e) {
      for (int64_t h = 0; h < n; ++h) t[e * n + h] -= top[h];
    }
    in_groups(edges * n, [&](int64_t k) { code[k] = softmax_code(t[k], qmax); });
    for (int64_t e = 0; e < edges; ++e) {
      for (int64_t h = 0; h < n; ++h) sum[h] += code[e * n + h];
    }
    for (int64_t e = 0; e < edges; ++e) {
      __builtin_memcpy(a.codes + (e0 + e) * a.heads + h0, code + e * n, static_cast<size_t>(n));
    }
  }
  for (int64_t h = 0; h < n; ++h) a.row_sum[i * a.heads + h0 + h] = sum[h];
}

inline void edge_softmax_rows(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  for (int64_t i = begin; i < end; ++i) {
    switch (a.heads) {
      case 1:
        edge_softmax_row<1>(a, i, 0, 1, qmax);
        break;
      case 2:
        edge_softmax_row<2>(a, i, 0, 2, qmax);
        break;
      case 4:
        edge_softmax_row<4>(a, i, 0, 4, qmax);
        break;
      case 8:
        edge_softmax_row<8>(a, i, 0, 8, qmax);
        break;
      default:
        for (int64_t h = 0; h < a.heads; h += 64) {
          edge_softmax_row<0>(a, i, h, a.heads - h < 64 ? a.heads - h : 64, qmax);
        }
    }
  }
}

}  // namespace
}  // namespace nodebits
