// Edges of a graph regrouped for a table of packed rows that does not fit the cache next to the
// core.
//
// Sources are cut into blocks of rows that fit that cache, targets into groups whose sums fit
// beside a block (or, where the cache is small, the next one); the edges of one group and one block
// stand together, row by row, as 16-bit positions in the block. The table then comes from the outer
// cache once per group instead of once per edge, and an edge's index takes two bytes instead of
// four. It pays when a row has several edges in each block.
//
// One flat piece of memory:
//   int64 magic, rows, sources, edges, group_rows, block_rows
//   int64 group_start[groups + 1]          first edge of each group
//   int32 counts[rows * blocks]            of group g from g * group_rows * blocks on: [block][row
//   of the group] uint16 local[edges]                    in the order of the counts
#pragma once

#include <cstddef>
#include <cstdint>

namespace nodebits {

constexpr int64_t kMostGroupRows = int64_t{1} << 40;

struct EdgeBlocks {
  int64_t rows = 0;
  int64_t sources = 0;
  int64_t edges = 0;
  int64_t group_rows = 0;
  int64_t block_rows = 0;
  const int64_t* group_start = nullptr;
  const int32_t* counts = nullptr;
  const uint16_t* local = nullptr;

  int64_t groups() const { return (rows + group_rows - 1) / group_rows; }
  int64_t blocks() const { return (sources + block_rows - 1) / block_rows; }
};

// Sizes that suit this machine and a table of `sources` rows of row_bytes; block_rows is 0 where
// blocks do not pay.
EdgeBlocks plan_edge_blocks(int64_t rows, int64_t sources, int64_t edges, int64_t row_bytes);

size_t edge_blocks_bytes(const EdgeBlocks& plan);

// Fills `memory` (8-byte aligned, edge_blocks_bytes long). The structure was checked before.
void make_edge_blocks(const EdgeBlocks& plan, const int64_t* indptr, const int32_t* indices,
                      void* memory, int threads);

// The view of such memory; false when it is not one, or not one of a graph of these sizes.
bool view_edge_blocks(const void* memory, size_t bytes, int64_t rows, int64_t sources,
                      int64_t edges, EdgeBlocks* view);

}  // namespace nodebits
