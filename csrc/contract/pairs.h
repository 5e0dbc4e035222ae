// Edges at which the codes of two rows meet: those of both ends, or of the source and the edge.
#pragma once

#include <cstdint>

#include "contract/rows.h"

namespace nodebits {

// Packed rows of unsigned fields.
struct FieldRows {
  const uint8_t* packed;
  int bits;
};

// Most columns of a head, so that a score's sums fit int32.
constexpr int64_t kMostScored = INT32_MAX / (510 * 255);

// What a score and a sum of pairs work in, for one thread: rows of num_cols elements.
struct PairRoom {
  uint8_t *source, *other, *value;
  int16_t *moved, *vector;
  int32_t *sums, *gates;
};

// factor * (sum of products) + source_factor * (their share that is linear in the source), see
// nodebits/ops/definitions/pairs.py.
struct ScoreArgs {
  const int64_t* indptr;
  const int32_t* indices;
  FieldRows source, target;
  const int32_t* vector;       // [num_cols], magnitudes up to 255; null: the product of both ends
  const int32_t* floor;        // [num_cols], 0 to 511; not read without a vector
  const float* factor;         // [heads]
  const float* source_factor;  // [heads]
  int64_t heads;
  int64_t num_cols;
};

// Sums over the edges of a row, then (sum - weight * zero_point) * scale.
struct PairSumArgs {
  const int64_t* indptr;
  const int32_t* indices;
  FieldRows source;
  FieldRows other;          // of edges; of targets where there are values
  const int64_t* order;     // [edges], rows of `other`; null: as the edges come
  const int32_t* floor;     // [num_cols], 0 to 511
  FieldRows value;          // of sources, weighed by gates
  const uint8_t* table;     // the gate of a sum of two codes
  const float* zero_point;  // [num_cols]
  const float* scale;       // [num_cols]
  float* out;               // [rows, num_cols]
  int64_t num_cols;
};

}  // namespace nodebits
