// Integer products computed tile by tile: the ground on which whole operators and fused chains
// stand.
//
// A driver prepares a product once, then lets `parallel` cut the result into tiles and computes
// each with `tile`, on the thread that it was called on, into any int32 memory: the output itself,
// or a scratch tile that an epilogue (rescale, activation, quantize, pack) reads while it is still
// in the cache:
//
//   const NeighborSum sum(args, rows, table_rows, threads);
//   sum.parallel(kRows, sum.block_columns(), [&](Tile t) {
//     alignas(64) int32_t scratch[kRows * kColumns];
//     t.out = scratch, t.stride = kColumns;
//     sum.tile(t);
//     ... epilogue on rows t.row_begin .. t.row_end, columns t.col_begin .. t.col_end ...
//   });
//
// Every element of the result is in exactly one tile, tiles of one call may run at the same time,
// and the split never shows in a result: integer sums are exact in any order.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "contract/kernels.h"
#include "run/edge_blocks.h"

namespace nodebits {

// Memory for one operator call, aligned to a cache line, not initialised.
class Buffer {
 public:
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  uint8_t* memory;
};

using TileTask = std::function<void(const Tile&)>;

// Sums over neighbours, unit weights or u8 weights, or another reduction, of rows of any width.
// Prepares what is shared by all tiles: rows of widths that the level has no kernel for are
// repacked, and rows of so many edges that one thread would be waited for are summed by all threads
// together.
class NeighborSum {
 public:
  // `blocks`, where there are some, hold the same edges regrouped, and are read instead for unit
  // weights.
  NeighborSum(const SpmmArgs& args, int64_t rows, int64_t table_rows, int threads,
              const EdgeBlocks* blocks = nullptr);

  // The width of a block of columns that is worth a pass of its own over the edges: two cache lines
  // of a packed row, which processors fetch as a pair, or what one accumulator holds.
  int64_t block_columns() const {
    if (blocked()) return segment_columns(args_.bits);
    return (args_.bits >= 4 ? 128 : 64) * 8 / args_.bits;
  }

  // Calls task(tile) for disjoint tiles that cover the result. A tile has at most max_rows rows (0:
  // no limit) and max_cols columns (0: all; otherwise a multiple of 8); tiles get about equal
  // numbers of edges. out and stride are left for the task to fill in.
  void parallel(int64_t max_rows, int64_t max_cols, const TileTask& task) const;

  // Computes one tile: col_begin a multiple of 8, col_end a multiple of 8 or the last column. Any
  // row range. With edge blocks a thread sums a whole group of rows at its first tile and keeps the
  // sums for the tiles that follow: `parallel` gives a thread the tiles of a group one after the
  // other.
  void tile(const Tile& t) const;

 private:
  bool blocked() const { return blocks_.block_rows > 0; }
  void (*kernel_of_edges() const)(const SpmmArgs&, const Tile&);
  void sum_hubs();
  void learn_columns();
  bool is_wide(int64_t row) const;
  const uint8_t* group_sums(int64_t group, int64_t unit) const;
  void cut(int64_t unit) const;
  void blocked_tile(const Tile& t) const;

  const Kernels& kernels_;
  SpmmArgs args_;
  int64_t rows_;
  int threads_;
  std::unique_ptr<Buffer> plain_;  // the table in unsigned fields, where those are wanted
  std::unique_ptr<Buffer> wide_;
  std::vector<int64_t> hubs_;  // rows in ascending order
  std::vector<int32_t> hub_sums_;
  EdgeBlocks blocks_;
  // One block of columns of the table, where its rows are no whole lines; made by `parallel`.
  mutable std::unique_ptr<Buffer> slice_;
  mutable int64_t slice_unit_ = -1;
  int64_t table_rows_;
  uint64_t id_ = 0;                     // tells this sum from others in a thread's memory
  std::vector<int32_t> columns_[2][2];  // [last block of columns?][wide?]: column to element
};

// Products of packed rows with packed signed weights.
class DenseProduct {
 public:
  // Where `args.panel` is null it is made here, from `weight`.
  DenseProduct(const GemmArgs& args, const WeightArgs& weight, int64_t rows, int threads);

  // As NeighborSum::parallel; tiles have all columns and about equal numbers of rows.
  void parallel(int64_t max_rows, const TileTask& task) const;

  // Computes one tile: col_begin a multiple of 64, col_end a multiple of 64 or the last column. Any
  // row range.
  void tile(const Tile& t) const;

  // The same, of other rows: those at `x`, of another width.
  void tile_of(const uint8_t* x, int x_bits, const Tile& t) const;

 private:
  const Kernels& kernels_;
  GemmArgs args_;
  int64_t rows_;
  int threads_;
  std::unique_ptr<Buffer> plain_;  // the rows in unsigned fields, where they are in others
  std::unique_ptr<Buffer> panel_;
};

}  // namespace nodebits
