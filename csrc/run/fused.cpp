// Drivers of the fused operators.
#include "run/fused.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/recode.h"
#include "run/schedule.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kSumCells = 32 * 512;  // of a tile of sums: 32 rows of a block of one-bit columns
constexpr int64_t kMostSumRows = 64;
constexpr int64_t kProductRows = 60;  // a multiple of every tile height of the products

void prepare_outputs(const FusedArgs& a, int64_t rows) {
  if (a.num_outputs == 0)
    prefer_huge_pages(a.floats, static_cast<size_t>(rows * a.num_cols) * sizeof(float));
  for (int i = 0; i < a.num_outputs; ++i) {
    const FusedOutput& o = a.outputs[i];
    prefer_huge_pages(o.packed, static_cast<size_t>(o.bytes));
  }
}

}  // namespace

void run_fused_spmm(const SpmmArgs& sum, const EdgeBlocks& blocks, int64_t rows, int64_t table_rows,
                    const FusedArgs& a, int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  if (a.own != nullptr && a.own_coding != 0) {
    const auto own = recoded(a.own, rows, a.num_cols, a.own_bits, a.own_coding, threads);
    FusedArgs plain = a;
    plain.own = own->memory;
    plain.own_coding = 0;
    return run_fused_spmm(sum, blocks, rows, table_rows, plain, threads);
  }
  prepare_outputs(a, rows);
  const auto finish = kernels().finish;
  const NeighborSum product(sum, rows, table_rows, threads, &blocks);
  const int64_t width = std::min(product.block_columns(), a.num_cols);
  const int64_t step = std::min(kMostSumRows, kSumCells / width);
  product.parallel(step, width, [&](Tile t) {
    alignas(64) int32_t scratch[kSumCells];
    t.out = scratch;
    t.stride = width;
    product.tile(t);
    finish(a, &t);
  });
}

void run_fused_gemm(const std::vector<FusedProduct>& products, int64_t rows, const FusedArgs& a,
                    int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  prepare_outputs(a, rows);
  const auto finish = kernels().finish;
  std::vector<std::unique_ptr<DenseProduct>> prepared;
  for (const FusedProduct& p : products)
    prepared.push_back(std::make_unique<DenseProduct>(p.args, p.weight, rows, threads));
  const size_t count = products.size();
  const int64_t cells = kProductRows * a.num_cols;
  prepared[0]->parallel(kProductRows, [&](const Tile& shape) {
    const Buffer scratch(count * static_cast<size_t>(cells) * sizeof(int32_t));
    std::vector<Tile> tiles(count, shape);
    for (size_t i = 0; i < count; ++i) {
      tiles[i].out = reinterpret_cast<int32_t*>(scratch.memory) + static_cast<int64_t>(i) * cells;
      tiles[i].stride = a.num_cols;
      prepared[i]->tile(tiles[i]);
    }
    finish(a, tiles.data());
  });
}

void run_fused_gemm_bucketed(const FusedProduct& product, const Buckets& buckets,
                             const FusedArgs& a, int threads) {
  if (buckets.rows == 0 || a.num_cols == 0) return;
  prepare_outputs(a, buckets.rows);
  const auto finish = kernels().finish;
  const DenseProduct dense(product.args, product.weight, buckets.rows, threads);
  each_block(buckets, kProductRows, product.args.depth * ((a.num_cols + 15) / 16), threads,
             [&](const RowBlock& block) {
               const Buffer scratch(static_cast<size_t>(block.rows * a.num_cols) * sizeof(int32_t));
               Tile t{
                   0,         block.rows, 0, a.num_cols, reinterpret_cast<int32_t*>(scratch.memory),
                   a.num_cols};
               dense.tile_of(product.args.x + block.offset, block.bits, t);
               FusedArgs here = a;
               here.order = buckets.order + block.first;
               finish(here, &t);
             });
}

ScanFlags run_fused_gemm_features(const FusedProduct& product, const ScanArgs& scan, int64_t rows,
                                  const FusedArgs& a, int threads) {
  ScanFlags found{false, false, true};
  if (rows == 0) return found;
  prepare_outputs(a, rows);
  const Kernels& k = kernels();
  const int64_t depth = scan.num_cols, bytes = packed_row_bytes(depth, scan.bits);
  const DenseProduct dense(product.args, product.weight, rows, threads);
  std::atomic<bool> negative{false}, finite{true};
  split_rows(rows, depth * ((a.num_cols + 15) / 16), threads, [&](int64_t begin, int64_t end) {
    const Buffer codes(static_cast<size_t>(kProductRows * bytes));
    const Buffer sums(static_cast<size_t>(kProductRows * a.num_cols) * sizeof(int32_t));
    for (int64_t row = begin; row < end; row += kProductRows) {
      const int64_t count = std::min(kProductRows, end - row);
      float extents[kProductRows];
      ScanArgs here = scan;
      here.x += row * depth;
      here.extent = extents;
      here.scale += row;
      here.packed = codes.memory;
      ScanFlags flags;
      k.scan(here, 0, count, nullptr, nullptr, nullptr, 0, &flags);
      if (flags.negative) negative.store(true, std::memory_order_relaxed);
      if (!flags.finite) finite.store(false, std::memory_order_relaxed);
      Tile t{0, count, 0, a.num_cols, reinterpret_cast<int32_t*>(sums.memory), a.num_cols};
      if (a.num_cols > 0) dense.tile_of(codes.memory, scan.bits, t);
      t.row_begin = row;
      t.row_end = row + count;
      k.finish(a, &t);
    }
  });
  found.negative = negative.load();
  found.finite = finite.load();
  return found;
}

}  // namespace nodebits
