// The range of a row of few bits, less what would round most of its values to zero
// (nodebits/core/own_scale.py).
#pragma once

#include <cstdint>

namespace nodebits {
namespace {

constexpr int kTrims = 10;

// What a row's scale has levels of: those above its zero.
inline float own_levels(int bits, bool symmetric) {
  const int qmax = (1 << bits) - 1;
  const int positive = qmax - (1 << (bits - 1));
  return static_cast<float>(!symmetric ? qmax : positive > 1 ? positive : 1);
}

// `extent` is the largest value, or magnitude where codes stand for both signs. Counts alone
// decide, so that the order of values does not matter.
inline float trimmed_extent(const float* x, int64_t n, float extent, float levels, bool symmetric) {
  int64_t there = 0;
  for (int64_t c = 0; c < n; ++c) there += (symmetric ? __builtin_fabsf(x[c]) : x[c]) > 0.0f;
  for (int trim = 0; trim < kTrims; ++trim) {
    const float half = (extent / levels) * 0.5f;
    int64_t kept = 0;
    for (int64_t c = 0; c < n; ++c) kept += (symmetric ? __builtin_fabsf(x[c]) : x[c]) > half;
    if (2 * kept >= there) break;
    extent *= 0.8f;
  }
  return extent;
}

}  // namespace
}  // namespace nodebits
