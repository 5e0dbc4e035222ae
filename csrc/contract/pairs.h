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

// Rows of edges whose codes are added to those of sources; none where `rows.packed` is null.
struct EdgeFields {
  FieldRows rows;
  const int64_t* order;  // [edges], the row of every edge; null: as the edges come
};

// Most columns of a head, so that a score's sums fit int32, and entries of tables.
constexpr int64_t kMostScored = INT32_MAX / (765 * 255);
constexpr int64_t kGates = 768, kSoftmaxWeights = 512;

// What a score and a sum of pairs work in, for one thread: rows of num_cols elements.
struct PairRoom {
  uint8_t *source, *target, *edge, *value, *gate;
  int16_t *moved, *vector, *joined, *joined_value;
  int32_t *sums, *gates;
};

// factor * (sum of products) + source_factor * (their share that is linear in the source), see
// nodebits/ops/definitions/pairs.py.
struct ScoreArgs {
  const int64_t* indptr;
  const int32_t* indices;
  FieldRows source, target;
  EdgeFields joined;
  const int32_t* vector;       // [num_cols], magnitudes up to 255; null: the product of both ends
  const int32_t* floor;        // [num_cols], 0 to 766; not read without a vector
  const float* factor;         // [heads]
  const float* source_factor;  // [heads]
  int64_t heads;
  int64_t num_cols;
};

// Sums over the edges of a row, then (sum - weight * zero_point) * scale; a mean is divided by its
// weight first.
struct PairSumArgs {
  const int64_t* indptr;
  const int32_t* indices;
  FieldRows source;
  FieldRows target;
  EdgeFields joined;
  FieldRows value;          // of sources, weighed by gates
  EdgeFields joined_value;  // likewise
  const int32_t* floor;     // [num_cols], 0 to 511
  // The gate of a sum of codes, or the weight of a distance from the largest message.
  const uint8_t* table;
  int gate_zero;            // subtracted from the gates of the table
  bool falling;             // distances are those from the smallest message
  const float* zero_point;  // [num_cols]
  const float* scale;       // [num_cols]
  float* out;               // [rows, num_cols]
  int64_t num_cols;
};

}  // namespace nodebits
