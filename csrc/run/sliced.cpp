// Driver of narrow propagation in slices.
#include "run/sliced.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/schedule.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

// Nodes by falling degree, those of one degree in ascending order.
std::vector<int32_t> by_degree(const int64_t* indptr, int64_t rows) {
  int64_t most = 0;
  for (int64_t i = 0; i < rows; ++i) most = std::max(most, indptr[i + 1] - indptr[i]);
  std::vector<int32_t> start(static_cast<size_t>(most + 2), 0);
  const auto at = [&](int64_t i) {
    return static_cast<size_t>(most - (indptr[i + 1] - indptr[i]));
  };
  for (int64_t i = 0; i < rows; ++i) ++start[at(i) + 1];
  for (size_t d = 1; d < start.size(); ++d) start[d] += start[d - 1];
  std::vector<int32_t> order(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i)
    order[static_cast<size_t>(start[at(i)]++)] = static_cast<int32_t>(i);
  return order;
}

template <class Index>
void lay_out(const PropagateArgs& a, const std::vector<int32_t>& order,
             const std::vector<int32_t>& place, const std::vector<int64_t>& starts,
             int64_t in_slice, Index none, Index* edges, int threads) {
  const int64_t rows = static_cast<int64_t>(order.size());
  const int64_t slices = static_cast<int64_t>(starts.size()) - 1;
  split_edges(starts.data(), slices, in_slice, threads, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t steps = starts[static_cast<size_t>(g + 1)] - starts[static_cast<size_t>(g)];
      for (int64_t r = 0; r < in_slice; ++r) {
        Index* to = edges + starts[static_cast<size_t>(g)] * in_slice + r;
        int64_t n = 0;
        if (g * in_slice + r < rows) {
          const int64_t node = order[static_cast<size_t>(g * in_slice + r)];
          const int64_t first = a.indptr[node];
          n = a.indptr[node + 1] - first;
          for (int64_t s = 0; s < n; ++s) {
            const auto source = static_cast<size_t>(a.indices[first + s]);
            to[s * in_slice] = static_cast<Index>(place[source]);
          }
        }
        for (int64_t s = n; s < steps; ++s) to[s * in_slice] = none;
      }
    }
  });
}

}  // namespace

int lanes_of(int64_t cols) {
  int lanes = 4;
  while (lanes < cols) lanes *= 2;
  return lanes;
}

std::vector<float> padded(const float* values, int64_t n, int lanes, float rest) {
  std::vector<float> out(static_cast<size_t>(lanes), rest);
  std::copy(values, values + n, out.begin());
  return out;
}

void run_sliced(const PropagateArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  const int lanes = lanes_of(a.num_cols);
  const int64_t cols = a.num_cols, in_slice = 64 / lanes;
  const int64_t slices = (rows + in_slice - 1) / in_slice, padded_rows = slices * in_slice;
  const std::vector<int32_t> order = by_degree(a.indptr, rows);
  std::vector<int32_t> place(static_cast<size_t>(rows));
  for (int64_t p = 0; p < rows; ++p)
    place[static_cast<size_t>(order[static_cast<size_t>(p)])] = static_cast<int32_t>(p);
  std::vector<int64_t> starts(static_cast<size_t>(slices + 1), 0);
  for (int64_t g = 0; g < slices; ++g) {
    const int64_t widest = order[static_cast<size_t>(g * in_slice)];
    starts[static_cast<size_t>(g + 1)] =
        starts[static_cast<size_t>(g)] + a.indptr[widest + 1] - a.indptr[widest];
  }
  const bool shorten = padded_rows < 1 << 16;
  const Buffer edges(static_cast<size_t>(starts.back() * in_slice) * (shorten ? 2 : 4));
  auto* short_edges = reinterpret_cast<uint16_t*>(edges.memory);
  auto* long_edges = reinterpret_cast<int32_t*>(edges.memory);
  if (shorten) {
    lay_out(a, order, place, starts, in_slice, static_cast<uint16_t>(padded_rows), short_edges,
            threads);
  } else {
    lay_out(a, order, place, starts, in_slice, static_cast<int32_t>(padded_rows), long_edges,
            threads);
  }

  const size_t values = static_cast<size_t>(padded_rows * lanes);
  std::vector<float> x(values, 0.0f), result(values);
  std::vector<float> factor(static_cast<size_t>(padded_rows), 1.0f);
  std::vector<float> degree(static_cast<size_t>(padded_rows), 0.0f);
  split_rows(rows, lanes, threads, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const auto at = static_cast<size_t>(p);
      const int64_t node = order[at];
      std::copy_n(a.x + node * cols, cols, x.data() + p * lanes);
      if (a.factor != nullptr) factor[at] = a.factor[node];
      degree[at] = static_cast<float>(a.indptr[node + 1] - a.indptr[node]);
    }
  });
  const size_t table_bytes = values + static_cast<size_t>(lanes);
  const Buffer first(table_bytes), second(table_bytes);
  std::memset(first.memory + values, 0, static_cast<size_t>(lanes));
  std::memset(second.memory + values, 0, static_cast<size_t>(lanes));

  // A row of parameters for each of the registers' rows.
  const auto repeated = [&](const float* of, float rest) {
    const std::vector<float> row = padded(of, cols, lanes, rest);
    std::vector<float> out;
    for (int i = 0; i < 16; ++i) out.push_back(row[static_cast<size_t>(i % lanes)]);
    return out;
  };
  SliceArgs s{};
  s.starts = starts.data();
  s.edges = shorten ? nullptr : long_edges;
  s.short_edges = shorten ? short_edges : nullptr;
  s.factor = factor.data();
  s.degree = degree.data();
  s.x = x.data();
  s.keep = a.keep;
  s.teleport = a.teleport;
  s.lanes = lanes;
  uint8_t *from = first.memory, *to = second.memory;
  std::vector<float> scale(16, 1.0f), zero_point(16, 0.0f);
  std::vector<float> next_scale(16, 1.0f), next_made_with(16, 0.0f);
  for (size_t step = 0; step <= a.rounds.size(); ++step) {
    if (step < a.rounds.size()) {
      const PropagateRound& next = a.rounds[step];
      next_scale = repeated(next.scale, 1.0f);
      next_made_with = repeated(next.made_with, 0.0f);
      s.next_bits = next.bits;
      s.next = to;
    } else {
      s.out = result.data();
    }
    if (step > 0) {
      const PropagateRound& now = a.rounds[step - 1];
      scale = repeated(now.scale, 1.0f);
      zero_point = repeated(now.zero_point, 0.0f);
      s.bits = now.bits;
      s.table = from;
    }
    s.scale = scale.data();
    s.zero_point = zero_point.data();
    s.next_scale = next_scale.data();
    s.next_made_with = next_made_with.data();
    split_edges(starts.data(), slices, 32, threads,
                [&](int64_t b, int64_t e) { k.lane_slices(s, b, e); });
    std::swap(from, to);
  }
  split_rows(rows, lanes, threads, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t node = order[static_cast<size_t>(p)];
      std::copy_n(result.data() + p * lanes, cols, a.out + node * cols);
    }
  });
}

}  // namespace nodebits
