// Packed rows: how they lie in memory, and what makes and reads them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nodebits {

#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "packed rows are read as little-endian words");
#endif

// Columns [0, num_cols) of b-bit codes, low bits first; a row ends on a byte boundary and its
// padding bits are zero.
static constexpr int64_t packed_row_bytes(int64_t num_cols, int bits) {
  return (num_cols * bits + 7) / 8;
}

struct PackArgs {
  const uint8_t* codes;  // [rows, num_cols]
  uint8_t* packed;       // [rows, packed_row_bytes]
  int64_t num_cols;
  int bits;
};

struct UnpackArgs {
  const uint8_t* packed;
  uint8_t* codes;
  int64_t num_cols;
  int bits;
  const int32_t* order = nullptr;  // row r of `packed` is row order[r] of `codes`; null: row r
  const uint8_t* shift = nullptr;  // [rows of codes], by which they are shifted left; null: 0
};

// Rows index[e] of `packed`, decoded: (code - zero_point) * scale, along the axis of QuantizeArgs.
struct GatherArgs {
  const uint8_t* packed;
  const int32_t* index;
  const float* scale;
  const float* zero_point;
  float* out;  // [number of indices, num_cols]
  int64_t num_cols;
  int axis;
  int bits;
};

// Repacks rows of `bits` as rows of `wide_bits`, the next width that has a summing kernel.
struct WidenArgs {
  const uint8_t* packed;
  uint8_t* wide;
  int64_t num_cols;
  int bits;
  int wide_bits;
};

// axis -1: one scale; 0: one per row; 1: one per column. Exactly one of `packed` and `codes` is
// set.
struct QuantizeArgs {
  const float* x;
  const float* scale;
  const float* zero_point;
  const float* row_factor;  // may be null
  uint8_t* packed;
  float* codes;
  int64_t num_cols;
  int axis;
  int bits;
};

enum class Gradient : int { kClip = 0, kPass = 1, kStrict = 2 };

// Row sums go to grad_scale/grad_zero_point when axis is 0, otherwise to the partial sums of the
// row block: one double each (axis -1) or num_cols doubles each (axis 1), zeroed by the caller.
struct QuantizeBackwardArgs {
  const float* grad;
  const float* x;
  const float* scale;
  const float* zero_point;
  float* grad_x;
  float* grad_scale;
  float* grad_zero_point;
  int64_t num_cols;
  int axis;
  int bits;
  Gradient mode;
};

struct ScanFlags {
  bool negative;  // a value is negative
  bool mixed;     // a row has two different codes
  bool finite;    // no value is NaN or infinite
};

struct ScanArgs {
  const float* x;   // [rows, num_cols]
  float* extent;    // [rows], largest magnitude, trimmed where asked for
  int64_t* counts;  // [rows], values that are not zero
  int32_t* first;   // [rows], code of the first of them
  int32_t* sums;    // [rows], sum of their codes
  uint8_t* packed;  // [rows, packed_row_bytes]
  float* scale;     // [rows]; not null: dense codes in `packed` instead of sparse ones
  int64_t num_cols;
  float min_scale;  // a smaller scale becomes 1
  int bits;
  bool symmetric;  // with `packed`: codes of both signs, around 2^(bits - 1)
  bool trim;       // ranges, see contract/trim.h
};

}  // namespace nodebits
