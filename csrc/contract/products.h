// Integer products: neighbour sums and dense products, tile by tile.
#pragma once

#include <cstddef>
#include <cstdint>

#include "contract/epilogues.h"

namespace nodebits {

// A rectangle of int32 results: element (r, c) of rows [row_begin, row_end) and columns [col_begin,
// col_end) goes to out[(r - row_begin) * stride + c - col_begin]; nothing else is written. `out`
// needs no alignment.
struct Tile {
  int64_t row_begin;
  int64_t row_end;
  int64_t col_begin;
  int64_t col_end;
  int32_t* out;
  int64_t stride;
};

struct WeightArgs {
  const uint8_t* packed;  // [num_out, packed_row_bytes(depth, bits)], two's complement fields
  int64_t num_out;
  int64_t depth;
  int bits;
  bool midrise;  // field c stands for 2c + 1
};

struct GemmArgs {
  const uint8_t* x;   // [rows, packed_row_bytes(depth, x_bits)]
  const void* panel;  // the level's own weight layout
  int64_t depth;
  int64_t num_out;
  int x_bits;
  int x_coding = 0;  // see coding.h; kernels read 0
};

// What becomes of the codes that the edges of a row lead to; a row without edges gives 0.
enum class Reduce : int { kSum, kLargest, kSmallest, kSquares };

struct SpmmArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const uint8_t* packed;
  const uint8_t* weight;  // [edges, heads]; null for the unit-weight sum
  int64_t num_edges;      // of the whole graph: what `indices` holds
  int64_t num_cols;
  int64_t table_bytes;  // size of `packed`: loads past a row are allowed only inside it
  int64_t heads;
  int bits;
  int coding;  // see coding.h; only unit-weight sums of rows, edge by edge, read others than 0
  Reduce reduce = Reduce::kSum;  // others take no weights
};

static constexpr int kLineSums = 256;
static constexpr int kMostLookedUp = 4;

// Sums of unit weights, with the node's own row, that are below kLineSums, and their codes.
struct SumLineArgs {
  SpmmArgs sum;        // of 1, 2 or 4 bits, coding 0
  const uint8_t* own;  // [rows], as the table; null: nothing is added
  int64_t own_bytes;
  CodeLine line;
  // Columns whose codes no line gives: codes[i][own code * kLineSums + sum], own code 0 where none
  // is added. Only in fields of whole parts of a byte.
  int num_looked_up;
  int32_t looked_up[kMostLookedUp];
  const uint8_t* codes[kMostLookedUp];
  uint8_t* packed;  // [rows, packed_row_bytes(num_cols, out_bits)]
  int out_bits;
};

// Edges of a row whose sums are below kLineSums for sure.
static constexpr int64_t most_line_edges(int bits, bool own) {
  return (kLineSums - 1) / ((1 << bits) - 1) - (own ? 1 : 0);
}

// Bytes of a row's accumulator in sum_segments, for one block of columns: 64 columns of bytes, else
// 128.
static constexpr int64_t kSumBytes = 256;
static constexpr int64_t segment_columns(int bits) { return bits == 8 ? 64 : 128; }

// Edges of consecutive rows into one block of sources and one block of columns.
struct SegmentArgs {
  const uint8_t* table;      // first byte of the columns in the block's first row
  const uint8_t* table_end;  // of the whole table
  int64_t stride;
  const uint16_t* sources;  // row in the block of every edge
  const int32_t* counts;    // edges of every row
  uint8_t* acc;             // added to; the order of columns is the level's own
  int64_t acc_stride;
  int64_t rows;
  int bytes;  // of the block of columns: at most 8 * bits of segment_columns
  int bits;   // 1, 2, 4 or 8
  bool wide;  // 32-bit sums, which take twice kSumBytes, except for bytes; bytes have no others
};

struct SoftmaxArgs {
  const int64_t* indptr;
  const int32_t* indices;  // null: `score_src` has a row for every edge
  const float* score_src;  // [sources, heads], or [edges from first_edge on, heads]
  const float* score_dst;  // [rows, heads]; null: 0
  uint8_t* codes;          // [edges, heads]
  int32_t* row_sum;        // [rows, heads]
  int64_t heads;
  float negative_slope;
  int bits;
  int64_t first_edge = 0;  // whose score comes first, without indices
};

}  // namespace nodebits
