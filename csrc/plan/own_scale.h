// Rows that bring their own scale (nodebits/engine/sites/own.py, core/affine.py).
#pragma once

#include <algorithm>
#include <cstdint>

namespace nodebits::plan {

// A smaller scale would make x / scale overflow for ordinary x: it becomes 1.
constexpr float kMinScale = 0x1p-100f;

inline float unsigned_scale(float extent, int bits) {
  const float scale = extent / static_cast<float>((1 << bits) - 1);
  return scale < kMinScale ? 1.0f : scale;
}

inline float symmetric_scale(float extent, int bits) {
  const int positive = std::max((1 << bits) - 1 - (1 << (bits - 1)), 1);
  const float scale = extent / static_cast<float>(positive);
  return scale < kMinScale ? 1.0f : scale;
}

struct OwnRows {
  uint8_t* packed;  // [rows, packed_row_bytes]
  float* scale;     // [rows]
};

// How rows that bring their own scale become codes.
struct OwnCodes {
  int bits;
  bool with_sign;
  bool trim;  // ranges, see contract/trim.h
};

// Packs x [rows, cols] with the scale of every row's values of the signs that its codes have.
void pack_own_rows(const float* x, int64_t rows, int64_t cols, const OwnCodes& codes,
                   const OwnRows& to, int threads);
// The same where unsigned codes meet negative values: a row's scale is that of its positive ones.
void pack_positive_rows(const float* x, int64_t rows, int64_t cols, const OwnCodes& codes,
                        const OwnRows& to, int threads);

}  // namespace nodebits::plan
