// Preparation and scheduling of tiled products.
#include "tiles.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "isa.h"
#include "memory.h"
#include "schedule.h"

namespace nodebits {
namespace {

// A row is a hub when it alone holds this share of one thread's edges: tasks of an eighth of a
// thread's share cannot even it out.
constexpr int64_t kHubShare = 4;
constexpr int64_t kHubEdges = 1 << 14;  // and is worth splitting at all

}  // namespace

Buffer::Buffer(size_t bytes)
    : memory(
          static_cast<uint8_t*>(::operator new(std::max<size_t>(bytes, 1), std::align_val_t{64}))) {
  prefer_huge_pages(memory, bytes);
}

Buffer::~Buffer() { ::operator delete(memory, std::align_val_t{64}); }

NeighborSum::NeighborSum(const SpmmArgs& args, int64_t rows, int64_t table_rows, int threads)
    : kernels_(kernels()), args_(args), rows_(rows), threads_(threads) {
  const int bits =
      (args.weight != nullptr ? kernels_.weighted_bits : kernels_.spmm_bits)[args.bits];
  if (bits != args.bits) {
    wide_ = std::make_unique<Buffer>(
        static_cast<size_t>(table_rows * packed_row_bytes(args.num_cols, bits)));
    const WidenArgs w{args.packed, wide_->memory, args.num_cols, args.bits, bits};
    split_rows(table_rows, args.num_cols / 4, threads,
               [&](int64_t b, int64_t e) { kernels_.widen(w, b, e); });
    args_.packed = wide_->memory;
    args_.bits = bits;
  }
  args_.table_bytes = table_rows * packed_row_bytes(args.num_cols, bits);
  if (threads_ > 1 && args_.num_cols > 0) sum_hubs();
}

void NeighborSum::sum_hubs() {
  const int64_t least = std::max(kHubEdges, args_.num_edges / (kHubShare * threads_));
  if (args_.num_edges < least) return;
  for (int64_t row = 0; row < rows_; ++row) {
    if (args_.indptr[row + 1] - args_.indptr[row] >= least) hubs_.push_back(row);
  }
  if (hubs_.empty()) return;
  const int64_t parts = kTasksPerThread * threads_;
  const int64_t cols = args_.num_cols;
  hub_sums_.assign(hubs_.size() * static_cast<size_t>(cols), 0);
  std::vector<int32_t> partial(static_cast<size_t>(parts * cols));
  const auto kernel = args_.weight != nullptr ? kernels_.spmm_weighted : kernels_.spmm;
  for (size_t h = 0; h < hubs_.size(); ++h) {
    const int64_t first = args_.indptr[hubs_[h]];
    const int64_t edges = args_.indptr[hubs_[h] + 1] - first;
    parallel_for(parts, threads_, [&](int64_t p) {
      // A piece of a row is a graph of one row.
      const int64_t piece[2] = {first + edges * p / parts, first + edges * (p + 1) / parts};
      SpmmArgs a = args_;
      a.indptr = piece;
      kernel(a, Tile{0, 1, 0, cols, partial.data() + p * cols, cols});
    });
    int32_t* sum = hub_sums_.data() + static_cast<int64_t>(h) * cols;
    for (int64_t p = 0; p < parts; ++p) {
      for (int64_t c = 0; c < cols; ++c) sum[c] += partial[static_cast<size_t>(p * cols + c)];
    }
  }
}

void NeighborSum::tile(const Tile& t) const {
  const auto kernel = args_.weight != nullptr ? kernels_.spmm_weighted : kernels_.spmm;
  Tile rest = t;
  auto hub = std::lower_bound(hubs_.begin(), hubs_.end(), t.row_begin);
  for (; hub != hubs_.end() && *hub < t.row_end; ++hub) {
    Tile before = rest;
    before.row_end = *hub;
    if (before.row_begin < before.row_end) kernel(args_, before);
    const int32_t* sums = hub_sums_.data() + (hub - hubs_.begin()) * args_.num_cols;
    std::memcpy(t.out + (*hub - t.row_begin) * t.stride, sums + t.col_begin,
                static_cast<size_t>(t.col_end - t.col_begin) * sizeof(int32_t));
    rest.row_begin = *hub + 1;
    rest.out = t.out + (rest.row_begin - t.row_begin) * t.stride;
  }
  if (rest.row_begin < rest.row_end) kernel(args_, rest);
}

void NeighborSum::parallel(int64_t max_rows, int64_t max_cols, const TileTask& task) const {
  const int64_t cols = args_.num_cols;
  if (rows_ == 0 || cols == 0) return;
  const int64_t width = max_cols > 0 ? std::min(max_cols, cols) : cols;
  const int64_t blocks = (cols + width - 1) / width;
  const int64_t per_edge =
      std::max<int64_t>(1, width * args_.bits / (args_.weight != nullptr ? 16 : 64));
  const int64_t parts = task_count((args_.num_edges + rows_) * per_edge, rows_, threads_);
  // All rows of one block of columns come before the next block: the threads share that block of
  // the table in their caches.
  parallel_for(parts * blocks, threads_, [&](int64_t i) {
    const int64_t part = i % parts, c = i / parts * width;
    const int64_t begin = edge_boundary(args_.indptr, rows_, part, parts);
    const int64_t end = edge_boundary(args_.indptr, rows_, part + 1, parts);
    const int64_t step = max_rows > 0 ? max_rows : rows_;
    for (int64_t r = begin; r < end; r += step) {
      task(Tile{r, std::min(r + step, end), c, std::min(c + width, cols), nullptr, 0});
    }
  });
}

DenseProduct::DenseProduct(const GemmArgs& args, const WeightArgs& weight, int64_t rows,
                           int threads)
    : kernels_(kernels()), args_(args), rows_(rows), threads_(threads) {
  panel_ = std::make_unique<Buffer>(kernels_.panel_bytes(weight));
  kernels_.make_panel(weight, panel_->memory);
  args_.panel = panel_->memory;
}

void DenseProduct::parallel(int64_t max_rows, const TileTask& task) const {
  if (args_.num_out == 0) return;
  const int64_t step = max_rows > 0 ? max_rows : rows_;
  split_rows(rows_, args_.depth * ((args_.num_out + 15) / 16), threads_,
             [&](int64_t begin, int64_t end) {
               for (int64_t r = begin; r < end; r += step) {
                 task(Tile{r, std::min(r + step, end), 0, args_.num_out, nullptr, 0});
               }
             });
}

void DenseProduct::tile(const Tile& t) const {
  if (args_.depth > 0) {
    kernels_.gemm(args_, t);
    return;
  }
  for (int64_t r = 0; r < t.row_end - t.row_begin; ++r) {
    std::fill_n(t.out + r * t.stride, t.col_end - t.col_begin, 0);
  }
}

}  // namespace nodebits
