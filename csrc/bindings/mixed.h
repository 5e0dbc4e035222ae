// Rows of several widths, as Python passes them.
#pragma once

#include <algorithm>
#include <vector>

#include "bindings/records.h"
#include "run/bucketed.h"

namespace nodebits {

// `order` must be a permutation: the caller made it by sorting.
inline Buckets buckets_of(const MixedIn& in) {
  check(in.counts.size() == 8, "counts needs one entry per width 1 to 8");
  check_cols(in.num_cols);
  int64_t rows = 0;
  for (int64_t n : in.counts) {
    check(n >= 0 && n <= INT32_MAX, "counts must be 0 to 2^31 - 1");
    rows += n;
  }
  const Buckets b{data<int32_t>(in.order, "order", {rows}), in.counts.data(), rows, in.num_cols};
  check(first_outside(b.order, rows, rows, 1) < 0, "order must be a permutation of the rows");
  return b;
}

// Rows of every width 1 to 8; loops without branches, since every forward checks them.
inline void count_widths(const uint8_t* widths, int64_t rows, int64_t counts[9]) {
  int64_t total = 0;
  for (int b = 1; b <= 8; ++b) {
    int64_t n = 0;
    for (int64_t i = 0; i < rows; ++i) n += widths[i] == b;
    counts[b] = n;
    total += n;
  }
  check(total == rows, "widths must be 1 to 8");
}

// Where the codes of rows of several widths go: see FusedOutput.
inline void place_rows(FusedOutput* o, const In& widths, const OptionalIn& position,
                       const OptionalIn& shift, int64_t rows, int64_t cols) {
  o->widths = data<uint8_t>(widths, "widths", {rows});
  int64_t counts[9] = {};
  count_widths(o->widths, rows, counts);
  check(position.has_value() != shift.has_value(),
        "rows of several widths need a position in their bucket, or a shift");
  bool outside = false;
  if (shift) {
    o->shift = data<uint8_t>(*shift, "shift", {rows});
    for (int64_t i = 0; i < rows; ++i) outside |= o->shift[i] > 7 || o->shift[i] + o->widths[i] > 8;
    check(!outside, "width + shift must be at most 8");
    o->bytes = rows * cols;
    return;
  }
  o->position = data<int32_t>(*position, "position", {rows});
  for (int64_t i = 0; i < rows; ++i)
    outside |= o->position[i] < 0 || o->position[i] >= counts[o->widths[i]];
  check(!outside, "position must be below the number of rows of that width");
  for (int b = 1; b <= 8; ++b) {
    o->bucket_begin[b] = o->bytes;
    o->bytes += counts[b] * packed_row_bytes(cols, b);
  }
}

// A zero point for every width becomes a row for every width where the scale is a column's.
inline const float* by_width(const float* zero_point, int axis, int64_t cols,
                             std::vector<float>* room) {
  if (axis != 1) return zero_point;
  for (int b = 0; b < 8; ++b) room->insert(room->end(), static_cast<size_t>(cols), zero_point[b]);
  return room->data();
}

}  // namespace nodebits
