// Arguments of neighbour sums.
#pragma once

#include <vector>

#include "bindings/records.h"
#include "run/edge_blocks.h"

namespace nodebits {

// All but the output.
inline SpmmArgs spmm_args(const EdgesIn& edges, const SourceIn& source) {
  SpmmArgs a{};
  const int64_t r = edges.rows(), e = edges.count();
  a.packed = source.checked();
  a.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {e});
  a.heads = 1;
  if (edges.weight) {
    a.heads = size(*edges.weight, 1, "weight");
    check(a.heads > 0 && source.num_cols % a.heads == 0,
          "num_cols must be a multiple of the weight's columns");
    a.weight = data<uint8_t>(*edges.weight, "weight", {e, a.heads});
  }
  a.num_edges = e;
  a.num_cols = source.num_cols;
  a.bits = source.bits;
  a.coding = source.coding;
  check(e == 0 || source.rows() > 0, "edges lead to a table without rows");
  return a;
}

// What edge_blocks made for this graph, or nothing.
inline EdgeBlocks blocks_of(const EdgesIn& edges, int64_t sources) {
  EdgeBlocks view;
  if (edges.blocks) {
    const int64_t bytes = size(*edges.blocks, 0, "blocks");
    const uint8_t* memory = data<uint8_t>(*edges.blocks, "blocks", {bytes});
    check(reinterpret_cast<uintptr_t>(memory) % 8 == 0, "blocks must start at a multiple of 8");
    check(view_edge_blocks(memory, static_cast<size_t>(bytes), edges.rows(), sources, edges.count(),
                           &view),
          "blocks were made for a graph of other sizes");
  }
  return view;
}

// The bias of an epilogue without one is all -0, which leaves every float as it is.
inline std::vector<float> no_bias(const EpilogueIn& in, int64_t cols) {
  return std::vector<float>(in.bias ? 0 : static_cast<size_t>(cols), -0.0f);
}

inline RescaleArgs epilogue_args(const EpilogueIn& in, const std::vector<float>& no_bias,
                                 int64_t rows, int64_t cols) {
  const OptionalIn& factor = in.row_offset ? in.row_offset : in.row_scale;
  const int64_t heads = factor ? size(*factor, 1, "row_scale") : 1;
  check(heads > 0 && cols % heads == 0,
        "the columns must be a multiple of the row factors' columns");
  RescaleArgs a{};
  a.col_scale = data<float>(in.col_scale, "col_scale", {cols});
  if (in.col_offset) a.col_offset = data<float>(*in.col_offset, "col_offset", {cols});
  if (in.row_offset) a.row_offset = data<float>(*in.row_offset, "row_offset", {rows, heads});
  if (in.row_scale) a.row_scale = data<float>(*in.row_scale, "row_scale", {rows, heads});
  a.bias = in.bias ? data<float>(*in.bias, "bias", {cols}) : no_bias.data();
  a.num_cols = cols;
  a.heads = heads;
  return a;
}

}  // namespace nodebits
