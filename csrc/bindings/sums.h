// Arguments of neighbour sums.
#pragma once

#include "bindings/arrays.h"
#include "run/edge_blocks.h"

namespace nodebits {

// Sets everything but the output; returns the rows of the table.
inline int64_t spmm_args(const In& indptr, const In& indices, const In& packed, int bits,
                         int64_t num_cols, const OptionalIn& weight, SpmmArgs* args) {
  check_bits(bits);
  check_cols(num_cols);
  SpmmArgs& a = *args;
  const int64_t r = size(indptr, 0, "indptr") - 1, e = size(indices, 0, "indices"),
                s = size(packed, 0, "packed");
  check(r >= 0, "indptr must have at least one entry");
  a.indptr = data<int64_t>(indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(indices, "indices", {e});
  a.packed = data<uint8_t>(packed, "packed", {s, packed_row_bytes(num_cols, bits)});
  a.heads = 1;
  if (weight) {
    a.heads = size(*weight, 1, "weight");
    check(a.heads > 0 && num_cols % a.heads == 0,
          "num_cols must be a multiple of the weight's columns");
    a.weight = data<uint8_t>(*weight, "weight", {e, a.heads});
  }
  a.num_edges = e;
  a.num_cols = num_cols;
  a.bits = bits;
  check(e == 0 || s > 0, "edges lead to a table without rows");
  return s;
}

// What edge_blocks made for this graph, or nothing.
inline EdgeBlocks blocks_of(const OptionalIn& blocks, int64_t rows, int64_t sources,
                            int64_t edges) {
  EdgeBlocks view;
  if (blocks) {
    const int64_t bytes = size(*blocks, 0, "blocks");
    const uint8_t* memory = data<uint8_t>(*blocks, "blocks", {bytes});
    check(reinterpret_cast<uintptr_t>(memory) % 8 == 0, "blocks must start at a multiple of 8");
    check(view_edge_blocks(memory, static_cast<size_t>(bytes), rows, sources, edges, &view),
          "blocks were made for a graph of other sizes");
  }
  return view;
}

// The bias of an epilogue without one: all -0, which leaves every float as it is.
inline RescaleArgs epilogue(const In& col_scale, const OptionalIn& col_offset,
                            const OptionalIn& row_offset, const OptionalIn& row_scale,
                            const OptionalIn& bias, const float* no_bias, int64_t rows,
                            int64_t cols, int64_t heads) {
  check(heads > 0 && cols % heads == 0,
        "the columns must be a multiple of the row factors' columns");
  RescaleArgs a{};
  a.col_scale = data<float>(col_scale, "col_scale", {cols});
  if (col_offset) a.col_offset = data<float>(*col_offset, "col_offset", {cols});
  if (row_offset) a.row_offset = data<float>(*row_offset, "row_offset", {rows, heads});
  if (row_scale) a.row_scale = data<float>(*row_scale, "row_scale", {rows, heads});
  a.bias = bias ? data<float>(*bias, "bias", {cols}) : no_bias;
  a.num_cols = cols;
  a.heads = heads;
  return a;
}

}  // namespace nodebits
