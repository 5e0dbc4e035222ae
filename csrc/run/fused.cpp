// Drivers of the fused operators.
#include "run/fused.h"

#include <algorithm>
#include <memory>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/recode.h"
#include "run/schedule.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kSumColumns = 512;             // of a block of one-bit columns, the widest
constexpr int64_t kSumCells = 32 * kSumColumns;  // of a tile of sums
constexpr int64_t kMostSumRows = 64;
constexpr int64_t kProductCells =
    kProductRows * 128;  // of a tile of a product that needs no memory

// The target's own rows in unsigned fields, which kernels read: null where they are so.
std::unique_ptr<Buffer> plain_own(FusedArgs* a, int64_t rows, int threads) {
  if (a->own == nullptr || a->own_coding == 0) return nullptr;
  auto own = recoded(a->own, rows, a->num_cols, a->own_bits, a->own_coding, threads);
  a->own = own->memory;
  a->own_coding = 0;
  return own;
}

}  // namespace

void prepare_outputs(const FusedArgs& a, int64_t rows) {
  if (a.num_outputs == 0)
    prefer_huge_pages(a.floats, static_cast<size_t>(rows * a.num_cols) * sizeof(float));
  for (int i = 0; i < a.num_outputs; ++i) {
    const FusedOutput& o = a.outputs[i];
    prefer_huge_pages(o.packed, static_cast<size_t>(o.bytes));
  }
}

void run_fused_spmm(const SpmmArgs& sum, const EdgeBlocks& blocks, int64_t rows, int64_t table_rows,
                    FusedArgs a, int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  const auto own = plain_own(&a, rows, threads);
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

void run_fused_rows(const SpmmArgs& sum, int64_t rows, int64_t table_rows, FusedArgs a, int threads,
                    const RowsTask& take) {
  if (rows == 0 || a.num_cols == 0) return;
  const auto own = plain_own(&a, rows, threads);
  const auto finish = kernels().finish;
  const NeighborSum product(sum, rows, table_rows, threads);
  const int64_t width = std::min(product.block_columns(), a.num_cols);
  const int64_t step = std::min(kMostSumRows, kSumCells / width);
  product.parallel(step, 0, [&](const Tile& shape) {
    alignas(64) int32_t scratch[kSumCells];
    const Buffer values(static_cast<size_t>((shape.row_end - shape.row_begin) * a.num_cols) *
                        sizeof(float));
    FusedArgs here = a;
    here.floats = reinterpret_cast<float*>(values.memory);
    here.first_row = shape.row_begin;
    for (int64_t c = 0; c < a.num_cols; c += width) {
      const Tile t{shape.row_begin, shape.row_end, c, std::min(c + width, a.num_cols),
                   scratch,         width};
      product.tile(t);
      finish(here, &t);
    }
    take(shape.row_begin, shape.row_end, here.floats);
  });
}

bool pays_sum_lines(const Kernels& k, const SpmmArgs& sum, const EdgeBlocks& blocks, int64_t rows,
                    bool own) {
  return k.sum_lines != nullptr && blocks.block_rows == 0 &&
         2 * sum.num_edges <= rows * most_line_edges(sum.bits, own);
}

void run_sum_lines(SumLineArgs lines, int64_t rows, int64_t table_rows, const FusedArgs& a,
                   int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  prepare_outputs(a, rows);
  const Kernels& k = kernels();
  const SpmmArgs& sum = lines.sum;
  const NeighborSum product(sum, rows, table_rows, threads);
  lines.sum.table_bytes = table_rows * packed_row_bytes(sum.num_cols, sum.bits);
  lines.own = a.own;
  lines.own_bytes = rows * packed_row_bytes(a.num_cols, a.own_bits);
  lines.packed = a.outputs[0].packed;
  lines.out_bits = a.outputs[0].bits;
  const int64_t width = std::min(product.block_columns(), a.num_cols);
  const int64_t per_edge = std::max<int64_t>(1, a.num_cols * sum.bits / 64);
  split_edges(sum.indptr, rows, per_edge, threads, [&](int64_t begin, int64_t end) {
    while ((begin = k.sum_lines(lines, begin, end)) < end) {
      for (int64_t c = 0; c < a.num_cols; c += width) {
        alignas(64) int32_t scratch[kSumColumns];
        Tile t{begin, begin + 1, c, std::min(c + width, a.num_cols), scratch, width};
        product.tile(t);
        k.finish(a, &t);
      }
      ++begin;
    }
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
  if (count == 1 && cells <= kProductCells) {
    prepared[0]->parallel(kProductRows, [&](Tile tile) {
      alignas(64) int32_t scratch[kProductCells];
      tile.out = scratch;
      tile.stride = a.num_cols;
      prepared[0]->tile(tile);
      finish(a, &tile);
    });
    return;
  }
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

}  // namespace nodebits
