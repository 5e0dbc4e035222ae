// Steps of propagation on rows of byte codes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nodebits {

// A step of propagation on rows of byte codes, see families/lanes.h. All parameters have `lanes`
// values: 4, 8 or 16, those past num_cols 0 (scales 1).
struct LaneArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const uint16_t* short_indices;  // the same, or null
  const uint8_t* table;           // [rows, lanes]; null: nothing is summed, `x` becomes codes
  const float* scale;
  const float* zero_point;
  int bits;
  const float* factor;  // [rows] or null
  const float* x;       // [rows, lanes]
  float keep;
  float teleport;
  float* out;     // [rows, num_cols], or null: the result becomes codes
  uint8_t* next;  // [rows, lanes]
  const float* next_scale;
  const float* next_made_with;
  int next_bits;
  int64_t num_cols;
  int lanes;
};

// Rows in slices of 64 / lanes, see sliced.h. Parameters of columns are repeated to 16.
struct SliceArgs {
  const int64_t* starts;        // [slices + 1], first step of every slice
  const int32_t* edges;         // [steps][64 / lanes] rows of the table; or null
  const uint16_t* short_edges;  // the same, or null
  const uint8_t* table;         // [rows + 1, lanes], the last row zero; null: `x` becomes codes
  const float* scale;
  const float* zero_point;
  int bits;
  const float* factor;  // [rows]
  const float* degree;  // [rows]
  const float* x;       // [rows, lanes]
  float keep;
  float teleport;
  float* out;     // [rows, lanes], or null: the result becomes codes
  uint8_t* next;  // [rows, lanes]
  const float* next_scale;
  const float* next_made_with;
  int next_bits;
  int lanes;
};

// state = stepped + coefficient * (spread, or stepped - state - spread).
struct CorrectArgs {
  const float* stepped;
  const float* spread;
  float* state;
  float coefficient;
  bool laplacian;
};

}  // namespace nodebits
