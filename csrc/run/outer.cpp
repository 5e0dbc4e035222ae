// Drivers of sums of outer products.
#include "run/outer.h"

#include <algorithm>

#include "run/dispatch.h"
#include "run/fused.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr int64_t kTileCells = 1 << 14;  // int32 sums, 64 KiB
constexpr int64_t kMostRows = 64;
constexpr int64_t kMostHeads = 64;  // of a tile; a multiple of 8, since packed rows are cut there

int64_t heads_of_tile(const OuterArgs& a) {
  const int64_t all = a.all_heads();
  const int64_t fit = std::min(kMostHeads, kTileCells / a.num_cols / 8 * 8);
  return std::min(all, std::max<int64_t>(fit, 8));
}

// Memory of one thread.
class Room {
 public:
  Room(const OuterArgs& a, int64_t heads, int64_t cells)
      : sums_(static_cast<size_t>(cells)),
        weights_(static_cast<size_t>(kOuterEdges / 2 * heads)),
        factors_(static_cast<size_t>(a.heads)) {}
  int32_t* sums() { return sums_.data(); }
  OuterRoom get() { return {factors_.data(), weights_.data()}; }

 private:
  std::vector<int32_t> sums_, weights_;
  std::vector<uint8_t> factors_;
};

}  // namespace

std::vector<int16_t> doubled_zeros(const int32_t* zero, int64_t num_cols) {
  const int64_t whole = (num_cols + kOuterColumns - 1) / kOuterColumns * kOuterColumns;
  std::vector<int16_t> made(static_cast<size_t>(2 * whole));
  for (int64_t c = 0; c < num_cols; ++c)
    made[static_cast<size_t>(2 * c)] = made[static_cast<size_t>(2 * c + 1)] =
        static_cast<int16_t>(zero[c]);
  return made;
}

void OuterSum::take_source(int64_t rows, int threads) {
  const FieldRows given = source_.rows();
  const int64_t bytes = rows * args_.num_cols;
  args_.source = given.packed;
  if (given.bits < 8) {
    wide_ = std::make_unique<Buffer>(static_cast<size_t>(bytes));
    const WidenArgs w{given.packed, wide_->memory, args_.num_cols, given.bits, 8};
    split_rows(rows, args_.num_cols / 4, threads,
               [&](int64_t b, int64_t e) { kernels().widen(w, b, e); });
    args_.source = wide_->memory;
  }
  args_.source_end = args_.source + bytes;
}

void run_outer_sum(const OuterArgs& args, const RescaleArgs& epilogue, int64_t begin, int64_t end,
                   float* out, int threads) {
  const int64_t cols = epilogue.num_cols;
  if (cols == 0) return;
  const Kernels& k = kernels();
  const int64_t step = std::clamp<int64_t>(kTileCells / cols, 1, kMostRows);
  const int64_t edges = (args.indptr[end] - args.indptr[begin]) / std::max<int64_t>(1, end - begin);
  split_rows(end - begin, (edges + 1) * cols / 16, threads, [&](int64_t first, int64_t last) {
    Room room(args, args.all_heads(), step * cols);
    for (int64_t row = begin + first; row < begin + last; row += step) {
      const Tile t{row, std::min(row + step, begin + last), 0, cols, room.sums(), cols};
      k.outer_sum(args, t, room.get());
      RescaleArgs e = epilogue;
      e.acc = t.out;
      if (e.row_offset != nullptr) e.row_offset += row;
      if (e.row_scale != nullptr) e.row_scale += row;
      e.out = out + (row - begin) * cols;
      k.rescale(e, 0, t.row_end - row);
    }
  });
}

void run_fused_outer_sum(const OuterArgs& args, int64_t rows, const FusedArgs& a, int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  prepare_outputs(a, rows);
  const Kernels& k = kernels();
  const int64_t heads = heads_of_tile(args), width = heads * args.num_cols;
  const int64_t step = std::clamp<int64_t>(kTileCells / width, 1, kMostRows);
  split_edges(args.indptr, rows, a.num_cols / 16, threads, [&](int64_t begin, int64_t end) {
    Room room(args, heads, step * width);
    for (int64_t row = begin; row < end; row += step) {
      for (int64_t c = 0; c < a.num_cols; c += width) {
        const Tile t{
            row, std::min(row + step, end), c, std::min(c + width, a.num_cols), room.sums(), width};
        k.outer_sum(args, t, room.get());
        k.finish(a, &t);
      }
    }
  });
}

}  // namespace nodebits
