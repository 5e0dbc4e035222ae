// Edge blocks as Python passes them.
#pragma once

#include "bindings/records.h"
#include "run/edge_blocks.h"

namespace nodebits {

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

}  // namespace nodebits
