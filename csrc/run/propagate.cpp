// Each step reads one packed matrix and writes the other: sum, rescale, combine, quantize and pack
// happen on a few rows at a time while they are in the cache. Only a corrected step keeps its state
// in float, since it needs the difference of two states.
#include "run/propagate.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/pool.h"
#include "run/schedule.h"
#include "run/sliced.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kTileValues = 4096;  // int32 sums and floats of a tile, 16 KiB each
constexpr int64_t kMaxTileRows = 128;

// Memory of one thread for the rows of one tile.
struct Scratch {
  std::vector<int32_t> sums;
  std::vector<float> values, changes;

  void reserve(size_t n) {
    // Each by itself: where memory ran out before, some are shorter than the others.
    if (sums.size() < n) sums.resize(n);
    if (values.size() < n) values.resize(n);
    if (changes.size() < n) changes.resize(n);
  }
};

thread_local Scratch scratch;

class Propagation {
 public:
  Propagation(const PropagateArgs& a, int64_t rows, int threads)
      : a_(a),
        k_(kernels()),
        rows_(rows),
        threads_(threads),
        tile_rows_(std::clamp<int64_t>(kTileValues / a.num_cols, 1, kMaxTileRows)),
        no_bias_(static_cast<size_t>(a.num_cols), -0.0f),
        degree_(static_cast<size_t>(rows)) {
    for (int64_t i = 0; i < rows; ++i) {
      degree_[static_cast<size_t>(i)] = static_cast<float>(a.indptr[i + 1] - a.indptr[i]);
    }
  }

  void run() {
    const int64_t cols = a_.num_cols;
    int widest = 1;
    for (const PropagateRound& r : a_.rounds) widest = std::max(widest, r.bits);
    const size_t packed_bytes = static_cast<size_t>(rows_ * packed_row_bytes(cols, widest));
    Buffer current(packed_bytes), next(packed_bytes);
    uint8_t *from = current.memory, *to = next.memory;
    const bool corrected = std::any_of(a_.coefficients.begin(), a_.coefficients.end(),
                                       [](float c) { return c != 0.0f; });
    split_rows(rows_, cols, threads_,
               [&](int64_t b, int64_t e) { pack(a_.x, b, b, e, a_.rounds[0], from); });
    if (corrected) {
      run_corrected(from, to);
    } else {
      run_plain(from, to);
    }
  }

 private:
  // Every step is one fused sum: what it leaves is the next step's packed rows.
  void run_plain(uint8_t* from, uint8_t* to) const {
    for (size_t step = 0; step < a_.rounds.size(); ++step) {
      FusedOutput next{};
      FusedArgs finish{};
      finish.num_terms = 1;
      finish.mixed = a_.teleport != 0.0f ? a_.x : nullptr;
      finish.keep = a_.keep;
      finish.teleport = a_.teleport;
      finish.num_cols = a_.num_cols;
      if (step + 1 < a_.rounds.size()) {
        const PropagateRound& r = a_.rounds[step + 1];
        next.scale = r.scale;
        next.zero_point = r.made_with;
        next.row_factor = a_.factor;
        next.packed = to;
        next.axis = 1;
        next.bits = r.bits;
        finish.outputs = &next;
        finish.num_outputs = 1;
      } else {
        finish.floats = a_.out;
      }
      tiles(a_.rounds[step], from, [&](const Tile& t, const RescaleArgs& epilogue) {
        const FusedTerm term{epilogue, nullptr, nullptr};
        FusedArgs args = finish;
        args.terms = &term;
        k_.finish(args, &t);
      });
      std::swap(from, to);
    }
  }

  void run_corrected(uint8_t* from, uint8_t* to) const {
    const int64_t cols = a_.num_cols;
    // A step needs the state before it, F, and the plain step, F_bar, which waits in out.
    Buffer states(static_cast<size_t>(rows_ * cols) * sizeof(float));
    float* state = reinterpret_cast<float*>(states.memory);
    split_rows(rows_, cols, threads_, [&](int64_t b, int64_t e) {
      std::copy(a_.x + b * cols, a_.x + e * cols, state + b * cols);
    });
    size_t round = 0;
    for (size_t step = 0; step < a_.coefficients.size(); ++step) {
      const PropagateRound& message = a_.rounds[round++];
      const float coefficient = a_.coefficients[step];
      const bool last = step + 1 == a_.coefficients.size();
      if (coefficient == 0.0f) {
        sum(message, from, [&](const Tile& t, int64_t n, float* y) {
          const int64_t at = t.row_begin * cols;
          k_.combine(a_.x + at, y, n, a_.keep, a_.teleport);
          if (last) {
            std::copy(y, y + n, a_.out + at);
            return;
          }
          std::copy(y, y + n, state + at);
          pack(y, 0, t.row_begin, t.row_end, a_.rounds[round], to);
        });
        std::swap(from, to);
        continue;
      }
      const PropagateRound& change = a_.rounds[round++];
      sum(message, from, [&](const Tile& t, int64_t n, float* y) {
        const int64_t at = t.row_begin * cols;
        k_.combine(a_.x + at, y, n, a_.keep, a_.teleport);
        std::copy(y, y + n, a_.out + at);
        k_.change(y, state + at, scratch.changes.data(), n);
        pack(scratch.changes.data(), 0, t.row_begin, t.row_end, change, to);
      });
      std::swap(from, to);
      sum(change, from, [&](const Tile& t, int64_t n, float* y) {
        const int64_t at = t.row_begin * cols;
        k_.correct(CorrectArgs{a_.out + at, y, state + at, coefficient, a_.laplacian}, n);
        if (last) {
          std::copy(state + at, state + at + n, a_.out + at);
        } else {
          pack(state, t.row_begin, t.row_begin, t.row_end, a_.rounds[round], to);
        }
      });
      std::swap(from, to);
    }
  }

  // Packs rows [begin, end) of the matrix whose row `first` is begin's.
  void pack(const float* x, int64_t first, int64_t begin, int64_t end, const PropagateRound& r,
            uint8_t* packed) const {
    QuantizeArgs q{};
    q.x = x + first * a_.num_cols;
    q.scale = r.scale;
    q.zero_point = r.made_with;
    q.row_factor = a_.factor == nullptr ? nullptr : a_.factor + begin;
    q.packed = packed + begin * packed_row_bytes(a_.num_cols, r.bits);
    q.num_cols = a_.num_cols;
    q.axis = 1;
    q.bits = r.bits;
    k_.quantize(q, 0, end - begin);
  }

  // Calls use(tile, epilogue) with the sums of a few rows at a time, all columns.
  template <class F>
  void tiles(const PropagateRound& r, const uint8_t* packed, const F& use) const {
    SpmmArgs s{};
    s.indptr = a_.indptr;
    s.indices = a_.indices;
    s.packed = packed;
    s.num_edges = a_.num_edges;
    s.num_cols = a_.num_cols;
    s.heads = 1;
    s.bits = r.bits;
    // Regrouped edges are summed in blocks of columns; a tile here has all of them.
    const bool one_block = a_.num_cols <= segment_columns(r.bits > 4 ? 8 : r.bits);
    const NeighborSum product(s, rows_, rows_, threads_, one_block ? a_.blocks : nullptr);
    RescaleArgs e{};
    e.col_scale = r.scale;
    e.col_offset = r.zero_point;
    e.row_offset = degree_.data();
    e.row_scale = a_.factor;
    e.bias = no_bias_.data();
    e.num_cols = a_.num_cols;
    e.heads = 1;
    product.parallel(tile_rows_, 0, [&](Tile t) {
      scratch.reserve(static_cast<size_t>(tile_rows_ * a_.num_cols));
      t.out = scratch.sums.data();
      t.stride = a_.num_cols;
      product.tile(t);
      use(t, e);
    });
  }

  // Calls use(tile, values, y) with the rescaled sums y of a few rows at a time.
  template <class F>
  void sum(const PropagateRound& r, const uint8_t* packed, const F& use) const {
    tiles(r, packed, [&](const Tile& t, RescaleArgs e) {
      e.acc = t.out;
      e.row_offset += t.row_begin;
      if (e.row_scale != nullptr) e.row_scale += t.row_begin;
      e.out = scratch.values.data();
      k_.rescale(e, 0, t.row_end - t.row_begin);
      use(t, (t.row_end - t.row_begin) * a_.num_cols, scratch.values.data());
    });
  }

  const PropagateArgs& a_;
  const Kernels& k_;
  const int64_t rows_;
  const int threads_;
  const int64_t tile_rows_;
  const std::vector<float> no_bias_;
  std::vector<float> degree_;
};

// Whether byte codes in vectors beat packed rows: narrow rows in the cache next to the core, plain
// steps. Regrouped edges mean a graph for which the engine wants its packed blocks.
bool fits_lanes(const PropagateArgs& a, int64_t rows) {
  return a.num_cols <= kMaxLanes && a.blocks == nullptr &&
         rows * lanes_of(a.num_cols) <= core_cache_bytes() &&
         std::all_of(a.coefficients.begin(), a.coefficients.end(),
                     [](float c) { return c == 0.0f; });
}

void run_lanes(const PropagateArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  const int lanes = lanes_of(a.num_cols);
  const int64_t cols = a.num_cols;
  LaneArgs l{};
  l.indptr = a.indptr;
  l.indices = a.indices;
  l.factor = a.factor;
  l.keep = a.keep;
  l.teleport = a.teleport;
  l.num_cols = cols;
  l.lanes = lanes;
  const bool whole = cols == lanes;
  const Buffer wide_x(whole ? 0 : static_cast<size_t>(rows * lanes) * sizeof(float));
  l.x = whole ? a.x : reinterpret_cast<const float*>(wide_x.memory);
  const bool shorten = rows <= 1 << 16 && a.rounds.size() > 1;
  const Buffer short_indices(shorten ? static_cast<size_t>(a.num_edges) * sizeof(uint16_t) : 0);
  if (shorten) {
    auto* to = reinterpret_cast<uint16_t*>(short_indices.memory);
    std::transform(a.indices, a.indices + a.num_edges, to,
                   [](int32_t i) { return static_cast<uint16_t>(i); });
    l.short_indices = to;
  }
  const size_t table_bytes = static_cast<size_t>(rows * lanes);
  const Buffer first(table_bytes), second(table_bytes);
  uint8_t *from = first.memory, *to = second.memory;
  split_rows(rows, cols, threads, [&](int64_t b, int64_t e) {
    if (whole) return;
    float* wide = reinterpret_cast<float*>(wide_x.memory);
    for (int64_t i = b; i < e; ++i) {
      std::copy(a.x + i * cols, a.x + (i + 1) * cols, wide + i * lanes);
      std::fill(wide + i * lanes + cols, wide + (i + 1) * lanes, 0.0f);
    }
  });
  std::vector<float> scale, zero_point;
  for (size_t step = 0; step <= a.rounds.size(); ++step) {
    std::vector<float> next_scale, next_made_with;
    if (step < a.rounds.size()) {
      const PropagateRound& next = a.rounds[step];
      next_scale = padded(next.scale, cols, lanes, 1.0f);
      next_made_with = padded(next.made_with, cols, lanes, 0.0f);
      l.next_scale = next_scale.data();
      l.next_made_with = next_made_with.data();
      l.next_bits = next.bits;
      l.next = to;
      l.out = nullptr;
    } else {
      l.out = a.out;
    }
    if (step > 0) {
      const PropagateRound& now = a.rounds[step - 1];
      scale = padded(now.scale, cols, lanes, 1.0f);
      zero_point = padded(now.zero_point, cols, lanes, 0.0f);
      l.scale = scale.data();
      l.zero_point = zero_point.data();
      l.bits = now.bits;
      l.table = from;
    }
    split_edges(a.indptr, rows, 2, threads, [&](int64_t b, int64_t e) { k.lane_rows(l, b, e); });
    std::swap(from, to);
  }
}

}  // namespace

void run_propagate(const PropagateArgs& a, int64_t rows, int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  const KeepAwake awake;  // steps of a small graph take as long as waking a thread
  if (fits_lanes(a, rows)) {
    if (kernels().lane_slices != nullptr && a.rounds.size() >= kSlicedRounds) {
      run_sliced(a, rows, threads);
    } else {
      run_lanes(a, rows, threads);
    }
    return;
  }
  prefer_huge_pages(a.out, static_cast<size_t>(rows * a.num_cols) * sizeof(float));
  Propagation(a, rows, threads).run();
}

}  // namespace nodebits
