// Preparation and scheduling of tiled products.
#include "run/tiles.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/recode.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

// A row is a hub when it alone holds this share of one thread's edges: tasks of an eighth of a
// thread's share cannot even it out.
constexpr int64_t kHubShare = 4;
constexpr int64_t kHubEdges = 1 << 14;  // and is worth splitting at all

// Sums of the group of rows that a thread is at. Kept between calls, as its pages are.
struct GroupSums {
  uint64_t owner = 0;
  int64_t group = -1;
  int64_t unit = -1;
  std::unique_ptr<Buffer> sums;  // [group_rows] accumulators
  std::unique_ptr<Buffer> wide;  // twice as large ones, of the rows in wide_rows
  int64_t sums_rows = 0;
  int64_t wide_capacity = 0;
  std::vector<int64_t> wide_rows;  // in the group, ascending
};

GroupSums& group_of_thread() {
  static thread_local GroupSums sums;
  return sums;
}

constexpr int64_t kReadableTail = 64;

// What another part of a row's edges gave joins what the parts before it gave.
void join(Reduce reduce, const int32_t* part, int64_t n, int32_t* all) {
  for (int64_t c = 0; c < n; ++c) {
    if (reduce == Reduce::kLargest) {
      all[c] = std::max(all[c], part[c]);
    } else if (reduce == Reduce::kSmallest) {
      all[c] = std::min(all[c], part[c]);
    } else {
      all[c] += part[c];
    }
  }
}

}  // namespace

Buffer::Buffer(size_t bytes)
    : memory(
          static_cast<uint8_t*>(::operator new(std::max<size_t>(bytes, 1), std::align_val_t{64}))) {
  prefer_huge_pages(memory, bytes);
}

Buffer::~Buffer() { ::operator delete(memory, std::align_val_t{64}); }

NeighborSum::NeighborSum(const SpmmArgs& args, int64_t rows, int64_t table_rows, int threads,
                         const EdgeBlocks* blocks)
    : kernels_(kernels()), args_(args), rows_(rows), threads_(threads), table_rows_(table_rows) {
  const bool weighted = args.weight != nullptr;
  const bool sums = args.reduce == Reduce::kSum;
  const bool in_blocks = blocks != nullptr && blocks->block_rows > 0 && !weighted && sums;
  const int bits = (weighted ? kernels_.weighted_bits : kernels_.spmm_bits)[args.bits];
  if (weighted || !sums || in_blocks || bits != args.bits) {
    plain_ = recoded(args.packed, table_rows, args.num_cols, args.bits, args.coding, threads);
    if (plain_ != nullptr) args_.packed = plain_->memory;
    args_.coding = 0;
  }
  if (bits != args.bits) {
    wide_ = std::make_unique<Buffer>(
        static_cast<size_t>(table_rows * packed_row_bytes(args.num_cols, bits)));
    const WidenArgs w{args_.packed, wide_->memory, args.num_cols, args.bits, bits};
    split_rows(table_rows, args.num_cols / 4, threads,
               [&](int64_t b, int64_t e) { kernels_.widen(w, b, e); });
    args_.packed = wide_->memory;
    args_.bits = bits;
  }
  args_.table_bytes = table_rows * packed_row_bytes(args.num_cols, bits);
  if (args_.num_cols == 0) return;
  if (in_blocks) {
    static std::atomic<uint64_t> next_id{1};
    blocks_ = *blocks;
    id_ = next_id.fetch_add(1, std::memory_order_relaxed);
    learn_columns();
  } else if (threads_ > 1) {
    sum_hubs();
  }
}

void (*NeighborSum::kernel_of_edges() const)(const SpmmArgs&, const Tile&) {
  if (args_.reduce != Reduce::kSum) return kernels_.reduce;
  return args_.weight != nullptr ? kernels_.spmm_weighted : kernels_.spmm;
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
  const auto kernel = kernel_of_edges();
  for (size_t h = 0; h < hubs_.size(); ++h) {
    const int64_t first = args_.indptr[hubs_[h]];
    const int64_t edges = args_.indptr[hubs_[h] + 1] - first;
    parallel_for(parts, threads_, [&](int64_t p) {
      // A piece of a row is a graph of one row. None is empty: a hub has more edges than pieces.
      const int64_t piece[2] = {first + edges * p / parts, first + edges * (p + 1) / parts};
      SpmmArgs a = args_;
      a.indptr = piece;
      kernel(a, Tile{0, 1, 0, cols, partial.data() + p * cols, cols});
    });
    int32_t* sum = hub_sums_.data() + static_cast<int64_t>(h) * cols;
    std::copy_n(partial.data(), cols, sum);
    for (int64_t p = 1; p < parts; ++p) join(args_.reduce, partial.data() + p * cols, cols, sum);
  }
}

// Sums a unit row per column and looks where in the accumulator its one went.
void NeighborSum::learn_columns() {
  const int64_t unit = segment_columns(args_.bits);
  const int64_t last = (args_.num_cols - 1) % unit + 1;
  for (int i = 0; i < 4; ++i) {
    const bool partial = i % 2 != 0, wide = i / 2 != 0;
    if (!wide && args_.bits == 8) continue;
    const int64_t cols = partial ? last : unit;
    const int64_t bytes = packed_row_bytes(cols, args_.bits);
    const int64_t acc_bytes = args_.bits != 8 && wide ? 2 * kSumBytes : kSumBytes;
    // Loads may take in what follows a row: zeros here.
    constexpr int64_t kStride = 128;
    const Buffer table(static_cast<size_t>(cols * kStride));
    const Buffer acc(static_cast<size_t>(cols * acc_bytes));
    std::fill_n(table.memory, cols * kStride, 0);
    std::fill_n(acc.memory, cols * acc_bytes, 0);
    std::vector<uint16_t> sources;
    const std::vector<int32_t> counts(static_cast<size_t>(cols), 1);
    for (int64_t c = 0; c < cols; ++c) {
      sources.push_back(static_cast<uint16_t>(c));
      table.memory[c * kStride + c * args_.bits / 8] =
          static_cast<uint8_t>(1 << (c * args_.bits % 8));
    }
    kernels_.sum_segments(SegmentArgs{table.memory, table.memory + cols * kStride, kStride,
                                      sources.data(), counts.data(), acc.memory, acc_bytes, cols,
                                      static_cast<int>(bytes), args_.bits, wide});
    const int64_t element = wide ? 4 : 2;
    for (int64_t c = 0; c < cols; ++c) {
      const uint8_t* sums = acc.memory + c * acc_bytes;
      int64_t at = 0;
      while (at * element < acc_bytes && sums[at * element] == 0) ++at;
      columns_[partial][wide].push_back(static_cast<int32_t>(at));
    }
  }
}

// Copies a block of columns of all rows to lines of their own. Rows that are no multiple of a line
// lie across two, which would be twice the bytes and leave the cache half the rows.
void NeighborSum::cut(int64_t unit) const {
  const int64_t stride = packed_row_bytes(args_.num_cols, args_.bits);
  const int64_t width = segment_columns(args_.bits) * args_.bits / 8, byte = unit * width;
  if (stride <= 64 || stride % 64 == 0 || unit == slice_unit_) return;
  if (slice_ == nullptr)
    slice_ = std::make_unique<Buffer>(static_cast<size_t>(table_rows_ * width));
  const size_t bytes = static_cast<size_t>(std::min(stride - byte, width));
  split_rows(table_rows_, 16, threads_, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(slice_->memory + r * width, args_.packed + r * stride + byte, bytes);
  });
  slice_unit_ = unit;
}

bool NeighborSum::is_wide(int64_t row) const {
  const int64_t most = 65535 / ((1 << args_.bits) - 1);
  return args_.bits == 8 || args_.indptr[row + 1] - args_.indptr[row] > most;
}

const uint8_t* NeighborSum::group_sums(int64_t group, int64_t unit) const {
  GroupSums& g = group_of_thread();
  if (g.owner == id_ && g.group == group && g.unit == unit) return g.sums->memory;
  const int64_t first = group * blocks_.group_rows;
  const int64_t rows = std::min(blocks_.rows - first, blocks_.group_rows);
  if (g.sums_rows < blocks_.group_rows) {
    g.sums = std::make_unique<Buffer>(
        static_cast<size_t>(blocks_.group_rows * kSumBytes + kReadableTail));
    g.sums_rows = blocks_.group_rows;
  }
  g.wide_rows.clear();
  if (args_.bits != 8) {
    for (int64_t r = 0; r < rows; ++r) {
      if (is_wide(first + r)) g.wide_rows.push_back(r);
    }
  }
  const int64_t wide_rows = static_cast<int64_t>(g.wide_rows.size());
  if (g.wide_capacity < wide_rows) {
    g.wide =
        std::make_unique<Buffer>(static_cast<size_t>(wide_rows * 2 * kSumBytes + kReadableTail));
    g.wide_capacity = wide_rows;
  }
  std::memset(g.sums->memory, 0, static_cast<size_t>(rows * kSumBytes));
  if (wide_rows > 0) std::memset(g.wide->memory, 0, static_cast<size_t>(wide_rows * 2 * kSumBytes));

  const int64_t columns = segment_columns(args_.bits);
  const int64_t stride = packed_row_bytes(args_.num_cols, args_.bits);
  const int64_t width = columns * args_.bits / 8, byte = unit * width;
  const bool sliced = slice_unit_ == unit;
  const uint8_t* table = sliced ? slice_->memory : args_.packed + byte;
  SegmentArgs a{};
  a.table_end = sliced ? table + table_rows_ * width : args_.packed + args_.table_bytes;
  a.stride = sliced ? width : stride;
  a.bytes = static_cast<int>(std::min(stride - byte, width));
  a.bits = args_.bits;
  const uint16_t* sources = blocks_.local + blocks_.group_start[group];
  const int64_t blocks = blocks_.blocks();
  for (int64_t b = 0; b < blocks; ++b) {
    a.table = table + b * blocks_.block_rows * a.stride;
    const int32_t* counts = blocks_.counts + first * blocks + b * rows;
    const auto run = [&](int64_t begin, int64_t end, uint8_t* acc, int64_t acc_stride, bool wide) {
      a.sources = sources;
      a.counts = counts + begin;
      a.rows = end - begin;
      a.acc = acc;
      a.acc_stride = acc_stride;
      a.wide = wide;
      sources += kernels_.sum_segments(a);
    };
    int64_t row = 0;
    for (int64_t w = 0; w < wide_rows; ++w) {
      const int64_t at = g.wide_rows[static_cast<size_t>(w)];
      if (row < at) run(row, at, g.sums->memory + row * kSumBytes, kSumBytes, false);
      run(at, at + 1, g.wide->memory + w * 2 * kSumBytes, 2 * kSumBytes, true);
      row = at + 1;
    }
    if (row < rows) {
      run(row, rows, g.sums->memory + row * kSumBytes, kSumBytes, args_.bits == 8);
    }
  }
  g.owner = id_, g.group = group, g.unit = unit;
  return g.sums->memory;
}

void NeighborSum::blocked_tile(const Tile& t) const {
  const int64_t unit_columns = segment_columns(args_.bits);
  for (int64_t c = t.col_begin; c < t.col_end;) {
    const int64_t unit = c / unit_columns, in_unit = c - unit * unit_columns;
    const int64_t stop = std::min((unit + 1) * unit_columns, t.col_end);
    const bool partial = (unit + 1) * unit_columns > args_.num_cols;
    for (int64_t row = t.row_begin; row < t.row_end;) {
      const int64_t group = row / blocks_.group_rows, first = group * blocks_.group_rows;
      const int64_t last = std::min(first + blocks_.group_rows, t.row_end);
      const uint8_t* sums = group_sums(group, unit);
      const GroupSums& g = group_of_thread();
      auto wide = std::lower_bound(g.wide_rows.begin(), g.wide_rows.end(), row - first);
      for (; row < last; ++row) {
        int32_t* out = t.out + (row - t.row_begin) * t.stride + (c - t.col_begin);
        const bool is_hub = wide != g.wide_rows.end() && *wide == row - first;
        const bool wide_sums = is_hub || args_.bits == 8;
        const uint8_t* acc = is_hub ? g.wide->memory + (wide - g.wide_rows.begin()) * 2 * kSumBytes
                                    : sums + (row - first) * kSumBytes;
        kernels_.read_sums(acc, wide_sums, columns_[partial][wide_sums].data() + in_unit, stop - c,
                           out);
        if (is_hub) ++wide;
      }
    }
    c = stop;
  }
}

void NeighborSum::tile(const Tile& t) const {
  if (blocked()) return blocked_tile(t);
  const auto kernel = kernel_of_edges();
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
  int64_t width = max_cols > 0 ? std::min(max_cols, cols) : cols;
  if (blocked()) width = std::min(width, block_columns());
  const int64_t blocks = (cols + width - 1) / width;
  const int64_t per_edge =
      std::max<int64_t>(1, width * args_.bits / (args_.weight != nullptr ? 16 : 64));
  const int64_t parts = blocked()
                            ? blocks_.groups()
                            : task_count((args_.num_edges + rows_) * per_edge, rows_, threads_);
  // All rows of one block of columns come before the next block: the threads share that block of
  // the table in their caches.
  const auto run = [&](int64_t part, int64_t c) {
    const int64_t begin =
        blocked() ? part * blocks_.group_rows : edge_boundary(args_.indptr, rows_, part, parts);
    const int64_t end = blocked() ? std::min(begin + blocks_.group_rows, rows_)
                                  : edge_boundary(args_.indptr, rows_, part + 1, parts);
    const int64_t step = max_rows > 0 ? max_rows : rows_;
    for (int64_t r = begin; r < end; r += step) {
      task(Tile{r, std::min(r + step, end), c, std::min(c + width, cols), nullptr, 0});
    }
  };
  if (!blocked()) {
    parallel_for(parts * blocks, threads_, [&](int64_t i) { run(i % parts, i / parts * width); });
    return;
  }
  for (int64_t c = 0; c < cols; c += width) {
    cut(c / block_columns());
    parallel_for(parts, threads_, [&](int64_t part) { run(part, c); });
  }
}

DenseProduct::DenseProduct(const GemmArgs& args, const WeightArgs& weight, int64_t rows,
                           int threads)
    : kernels_(kernels()), args_(args), rows_(rows), threads_(threads) {
  plain_ = recoded(args.x, rows, args.depth, args.x_bits, args.x_coding, threads);
  if (plain_ != nullptr) args_.x = plain_->memory;
  if (args_.panel != nullptr) return;
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

void DenseProduct::tile(const Tile& t) const { tile_of(args_.x, args_.x_bits, t); }

void DenseProduct::tile_of(const uint8_t* x, int x_bits, const Tile& t) const {
  if (args_.depth > 0) {
    GemmArgs args = args_;
    args.x = x;
    args.x_bits = x_bits;
    kernels_.gemm(args, t);
    return;
  }
  for (int64_t r = 0; r < t.row_end - t.row_begin; ++r) {
    std::fill_n(t.out + r * t.stride, t.col_end - t.col_begin, 0);
  }
}

}  // namespace nodebits
