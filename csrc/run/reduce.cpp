// Drivers of reductions other than sums.
#include "run/reduce.h"

#include <algorithm>
#include <memory>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kRows = 8;  // whose sources stay in the cache from one integer to the next
constexpr int kReductions = 4;

bool asks(Statistic kind, Reduce reduce) {
  switch (kind) {
    case Statistic::kSum:
    case Statistic::kMean:
      return reduce == Reduce::kSum;
    case Statistic::kLargest:
      return reduce == Reduce::kLargest;
    case Statistic::kSmallest:
      return reduce == Reduce::kSmallest;
    default:
      return reduce == Reduce::kSum || reduce == Reduce::kSquares;
  }
}

}  // namespace

std::vector<Statistic> statistics_of(const std::vector<int64_t>& kinds) {
  check(!kinds.empty() && kinds.size() <= 64, "kinds holds 1 to 64 statistics");
  std::vector<Statistic> made;
  for (int64_t kind : kinds) {
    check(kind >= 0 && kind <= static_cast<int64_t>(Statistic::kDeviation),
          "a statistic is 0 to 5");
    made.push_back(static_cast<Statistic>(kind));
  }
  return made;
}

void run_statistics(const SpmmArgs& edges, const StatisticsArgs& a, int64_t rows,
                    int64_t table_rows, int threads) {
  if (rows == 0 || a.num_cols == 0) return;
  prefer_huge_pages(a.out, static_cast<size_t>(rows * a.num_kinds * a.num_cols) * sizeof(float));
  std::unique_ptr<NeighborSum> sums[kReductions];
  const NeighborSum* any = nullptr;
  for (int i = 0; i < kReductions; ++i) {
    const auto reduce = static_cast<Reduce>(i);
    if (std::none_of(a.kinds, a.kinds + a.num_kinds,
                     [&](Statistic kind) { return asks(kind, reduce); }))
      continue;
    SpmmArgs args = edges;
    args.reduce = reduce;
    sums[i] = std::make_unique<NeighborSum>(args, rows, table_rows, threads);
    any = sums[i].get();
  }
  const auto finish = kernels().statistics;
  const int64_t width = std::min(any->block_columns(), a.num_cols);
  any->parallel(kRows, width, [&](const Tile& shape) {
    alignas(64) int32_t scratch[kReductions][kRows * 512];
    Tile tiles[kReductions];
    for (int i = 0; i < kReductions; ++i) {
      tiles[i] = shape;
      tiles[i].out = scratch[i];
      tiles[i].stride = width;
      if (sums[i] != nullptr) sums[i]->tile(tiles[i]);
    }
    finish(a, tiles);
  });
}

}  // namespace nodebits
