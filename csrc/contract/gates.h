// Functions of codes at an edge, whose sums are integers.
#pragma once

#include <cstdint>

#include "contract/pairs.h"

namespace nodebits {

// Entries of a table that is read by the sum of three codes.
constexpr int64_t kLevels = 768;

// What such sums work in, for one thread: rows of num_cols elements.
struct GateRoom {
  uint8_t *source, *edge, *value, *value_edge;
  int16_t *mine, *value_mine;
  int32_t *sums, *number;
  float *slope, *offset;
};

// Sums of max(slope * u + offset, 0): the codes above zero, and how many they are. slope is gamma *
// scale, offset beta - slope * zero_point.
struct ModulatedArgs {
  const int64_t* indptr;
  const int32_t* indices;
  FieldRows source;
  const float* film;        // [rows, 2 * num_cols]: beta, gamma
  const float* scale;       // [num_cols]
  const float* zero_point;  // likewise
  const float* row_scale;   // [rows], or null
  float* out;               // [rows, num_cols]
  int64_t num_cols;
};

// Sums of gates[a] * values[b], a and b sums of the codes of both ends and of the edge; or the
// largest of them, which is not below 0.
struct GatedProductArgs {
  const int64_t* indptr;
  const int32_t* indices;
  FieldRows source, target, value_source, value_target;
  FieldRows edge, value_edge;  // packed null: edges have no rows
  const int64_t* order;        // [edges]; null: as the edges come
  const uint8_t* gates;        // [768]
  const uint8_t* values;       // [768]
  float scale;
  float* out;  // [rows, num_cols]
  int64_t num_cols;
  bool largest;
};

}  // namespace nodebits
