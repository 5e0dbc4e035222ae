// Sums over edges of the outer product of what stands on an edge with the row of its source.
#pragma once

#include <cstdint>

#include "contract/pairs.h"

namespace nodebits {

// Edges whose rows and factors are at hand at a time, two by two.
constexpr int64_t kOuterEdges = 64;
// Columns of a block: zero points are that many more where one is not whole.
constexpr int64_t kOuterColumns = 16;

// Column k * num_cols + c of a row is the sum over its edges of (factor k of the edge -
// factor_zero[k]) * (code c of the source - zero[c]). With `plain` a last factor is 1 everywhere.
struct OuterArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const uint8_t* source;  // [sources, num_cols]
  const uint8_t* source_end;
  EdgeFields factors;          // of `heads` columns
  const int16_t* zero;         // 0 to 255, each twice, in whole blocks of columns
  const int32_t* factor_zero;  // [heads], 0 to 255
  int64_t num_cols;
  int64_t heads;
  bool plain;

  int64_t all_heads() const { return heads + (plain ? 1 : 0); }
};

// What a thread works in.
struct OuterRoom {
  uint8_t* factors;  // heads
  int32_t* weights;  // kOuterEdges / 2 times the heads of a tile
};

}  // namespace nodebits
