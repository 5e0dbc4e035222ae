// From integers to the statistics of a row's edges: one rounding per operation, in the order in
// which nodebits/ops/definitions/reduce.py writes them.
#pragma once

#include "contract/kernels.h"

namespace nodebits {
namespace {

// A variance below this is none: PyG's StdAggregation, and the root of it.
constexpr float kLeastVariance = 1e-5f, kLeastDeviation = 0.0031622776601683795f;

inline void decoded_span(const int32_t* acc, int64_t n, float offset, const float* zero_point,
                         const float* scale, float* y) {
  for (int64_t j = 0; j < n; ++j)
    y[j] = (static_cast<float>(acc[j]) - offset * zero_point[j]) * scale[j];
}

// n * squares - sum^2 is exact in 64 bits, and the zero point drops out of it.
inline void variance_span(const int32_t* sum, const int32_t* squares, int64_t n, int64_t edges,
                          float inverse, const float* scale, float* y) {
  for (int64_t j = 0; j < n; ++j) {
    const int64_t spread = edges * squares[j] - static_cast<int64_t>(sum[j]) * sum[j];
    y[j] = static_cast<float>(spread) * inverse * inverse * scale[j] * scale[j];
  }
}

inline void deviation_span(float* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    const float variance = y[j] <= kLeastVariance ? kLeastVariance : y[j];  // NaN stays
    const float root = __builtin_sqrtf(variance);
    y[j] = root <= kLeastDeviation ? 0.0f : root;
  }
}

// What is added to every value of a row's edges moves sums by as many times, means and extremes
// once.
inline void moved_span(const float* moved, float times, int64_t n, float* y) {
  for (int64_t j = 0; j < n; ++j) y[j] += moved[j] * times;
}

inline void statistics_tile(const StatisticsArgs& a, const Tile* tiles) {
  const Tile& t = tiles[0];
  const int64_t c = t.col_begin, n = t.col_end - c;
  const float* scale = a.scale + c;
  const float* zero = a.zero_point + c;
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    const int64_t edges = a.indptr[row + 1] - a.indptr[row];
    const float degree = static_cast<float>(edges);
    const float inverse = edges > 0 ? 1.0f / degree : 0.0f;
    const float some = edges > 0 ? 1.0f : 0.0f;
    const auto acc = [&](Reduce reduce) {
      const Tile& of = tiles[static_cast<int>(reduce)];
      return of.out + (row - t.row_begin) * of.stride;
    };
    for (int k = 0; k < a.num_kinds; ++k) {
      float* y = a.out + (row * a.num_kinds + k) * a.num_cols + c;
      switch (a.kinds[k]) {
        case Statistic::kLargest:
          decoded_span(acc(Reduce::kLargest), n, some, zero, scale, y);
          break;
        case Statistic::kSmallest:
          decoded_span(acc(Reduce::kSmallest), n, some, zero, scale, y);
          break;
        case Statistic::kSum:
        case Statistic::kMean:
          decoded_span(acc(Reduce::kSum), n, degree, zero, scale, y);
          if (a.kinds[k] == Statistic::kMean) {
            for (int64_t j = 0; j < n; ++j) y[j] *= inverse;
          }
          break;
        default:
          variance_span(acc(Reduce::kSum), acc(Reduce::kSquares), n, edges, inverse, scale, y);
          if (a.kinds[k] == Statistic::kDeviation) deviation_span(y, n);
          continue;
      }
      const float times = a.kinds[k] == Statistic::kSum ? degree : some;
      if (a.moved != nullptr) moved_span(a.moved + row * a.num_cols + c, times, n, y);
    }
  }
}

}  // namespace
}  // namespace nodebits
