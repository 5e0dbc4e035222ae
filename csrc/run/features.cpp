// Driver of the products of raw features.
#include "run/features.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "run/dispatch.h"
#include "run/schedule.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

// Of a block of rows whose values are not zero more often than this the product is dense.
constexpr int64_t kMostShare = 2;

// The codes of a block of rows that are not zero.
struct SparseRows {
  Buffer indices, codes, values;
  int64_t room;
  int64_t counts[kProductRows], indptr[kProductRows + 1];
  int32_t first[kProductRows], sums[kProductRows];

  explicit SparseRows(int64_t depth)
      : indices(room_of(depth) * sizeof(int32_t)),
        codes(room_of(depth)),
        values(static_cast<size_t>(depth) * sizeof(float)),
        room(static_cast<int64_t>(room_of(depth))) {}

 private:
  // Whole blocks of columns are written, not the values alone.
  static size_t room_of(int64_t depth) {
    return static_cast<size_t>(kProductRows * depth / kMostShare + 64);
  }
};

}  // namespace

void make_sparse_table(const WeightArgs& w, uint8_t* table) {
  const Kernels& k = kernels();
  const Buffer fields(static_cast<size_t>(w.depth));
  const uint8_t half = static_cast<uint8_t>(1 << (w.bits - 1));
  for (int64_t m = 0; m < w.num_out; ++m) {
    const int64_t bytes = packed_row_bytes(w.depth, w.bits);
    k.unpack({w.packed + m * bytes, fields.memory, w.depth, w.bits}, 0, 1);
    for (int64_t d = 0; d < w.depth; ++d)
      table[d * w.num_out + m] = static_cast<uint8_t>(fields.memory[d] ^ half);
  }
}

double sample_density(const float* x, int64_t rows, int64_t cols) {
  const int64_t wanted =
      std::max<int64_t>(1, std::min<int64_t>(32, 30'000 / std::max<int64_t>(1, cols)));
  const int64_t step = std::max<int64_t>(1, rows / wanted);
  int64_t taken = 0, found = 0;
  for (int64_t r = 0; r < rows && taken < wanted; r += step, ++taken) {
    const float* row = x + r * cols;
    for (int64_t c = 0; c < cols; ++c) found += row[c] != 0.0f ? 1 : 0;
  }
  return static_cast<double>(found) / static_cast<double>(std::max<int64_t>(1, taken * cols));
}

namespace {

class FeatureProduct {
 public:
  FeatureProduct(const FusedProduct& product, const SparseWeight& sparse, const ScanArgs& scan,
                 int64_t rows, const FusedArgs& a, int threads)
      : k_(kernels()),
        dense_(product.args, product.weight, rows, threads),
        sparse_(sparse),
        scan_(scan),
        a_(a) {}

  // Rows [begin, end).
  void run(int64_t begin, int64_t end, std::atomic<bool>* negative,
           std::atomic<bool>* finite) const {
    std::optional<SparseRows> few;
    if (sparse_.table != nullptr) few.emplace(scan_.num_cols);
    std::optional<Buffer> codes;
    const Buffer sums(static_cast<size_t>(kProductRows * a_.num_cols) * sizeof(int32_t));
    for (int64_t row = begin; row < end; row += kProductRows) {
      const int64_t count = std::min(kProductRows, end - row);
      Tile t{0, count, 0, a_.num_cols, reinterpret_cast<int32_t*>(sums.memory), a_.num_cols};
      ScanFlags flags;
      if (!few || !sparse_tile(*few, row, t, &flags)) {
        if (!codes)
          codes.emplace(
              static_cast<size_t>(kProductRows * packed_row_bytes(scan_.num_cols, scan_.bits)));
        dense_tile(codes->memory, row, t, &flags);
      }
      if (flags.negative) negative->store(true, std::memory_order_relaxed);
      if (!flags.finite) finite->store(false, std::memory_order_relaxed);
      t.row_begin = row;
      t.row_end = row + count;
      k_.finish(a_, &t);
    }
  }

 private:
  void dense_tile(uint8_t* codes, int64_t row, const Tile& t, ScanFlags* flags) const {
    float extents[kProductRows];
    ScanArgs here = scan_;
    here.x += row * here.num_cols;
    here.extent = extents;
    here.scale += row;
    here.packed = codes;
    k_.scan(here, 0, t.row_end, nullptr, nullptr, nullptr, 0, flags);
    if (a_.num_cols > 0) dense_.tile_of(codes, here.bits, t);
  }

  // False where too many values are not zero.
  bool sparse_tile(SparseRows& s, int64_t row, const Tile& t, ScanFlags* flags) const {
    float extents[kProductRows];
    ScanArgs here = scan_;
    here.x += row * here.num_cols;
    here.extent = extents;
    here.scale = nullptr;
    here.counts = s.counts;
    here.first = s.first;
    here.sums = s.sums;
    int32_t* indices = reinterpret_cast<int32_t*>(s.indices.memory);
    const int64_t found = k_.scan(here, 0, t.row_end, indices, s.codes.memory,
                                  reinterpret_cast<float*>(s.values.memory), s.room, flags);
    if (found < 0) return false;
    const float qmax = static_cast<float>((1 << here.bits) - 1);
    s.indptr[0] = 0;
    for (int64_t r = 0; r < t.row_end; ++r) {
      const float scale = extents[r] / qmax;
      scan_.scale[row + r] = scale < here.min_scale ? 1.0f : scale;
      s.indptr[r + 1] = s.indptr[r] + s.counts[r];
    }
    SpmmArgs sum{};
    sum.indptr = s.indptr;
    sum.indices = indices;
    sum.packed = sparse_.table;
    sum.weight = s.codes.memory;
    sum.num_edges = found;
    sum.num_cols = a_.num_cols;
    sum.table_bytes = here.num_cols * a_.num_cols;
    sum.heads = 1;
    sum.bits = 8;
    if (a_.num_cols == 0) return true;
    k_.spmm_weighted(sum, t);
    // Sums of codes times (c + half) to those of codes times c, or times 2c + 1. Unsigned: an
    // intermediate may leave int32 where the result does not.
    const int half = 1 << (sparse_.bits - 1);
    const uint32_t times = sparse_.doubled ? 2 : 1;
    const uint32_t plus = static_cast<uint32_t>(sparse_.doubled ? 1 - 2 * half : -half);
    for (int64_t r = 0; r < t.row_end; ++r) {
      const uint32_t offset = static_cast<uint32_t>(s.sums[r]) * plus;
      int32_t* out = t.out + r * t.stride;
      for (int64_t c = 0; c < a_.num_cols; ++c)
        out[c] = static_cast<int32_t>(static_cast<uint32_t>(out[c]) * times + offset);
    }
    return true;
  }

  const Kernels& k_;
  const DenseProduct dense_;
  const SparseWeight sparse_;
  const ScanArgs scan_;
  const FusedArgs& a_;
};

}  // namespace

ScanFlags run_fused_gemm_features(const FusedProduct& product, const SparseWeight& sparse,
                                  const ScanArgs& scan, int64_t rows, const FusedArgs& a,
                                  int threads) {
  ScanFlags found{false, false, true};
  if (rows == 0) return found;
  prepare_outputs(a, rows);
  const FeatureProduct made(product, sparse, scan, rows, a, threads);
  std::atomic<bool> negative{false}, finite{true};
  const int64_t strips = sparse.table != nullptr ? 1 : (a.num_cols + 15) / 16;
  split_rows(rows, scan.num_cols * strips, threads,
             [&](int64_t begin, int64_t end) { made.run(begin, end, &negative, &finite); });
  found.negative = negative.load();
  found.finite = finite.load();
  return found;
}

}  // namespace nodebits
