// Statistics of the rows that the edges of a target lead to.
#pragma once

#include <vector>

#include "contract/kernels.h"
#include "run/arguments.h"

namespace nodebits {

// All edges of a row are read while its sources are in the cache, once for every integer that the
// statistics ask for.
void run_statistics(const SpmmArgs& edges, const StatisticsArgs& a, int64_t rows,
                    int64_t table_rows, int threads);

std::vector<Statistic> statistics_of(const std::vector<int64_t>& kinds);

// All but the output.
template <class A>
StatisticsArgs statistics_args(const SpmmArgs& edges, const std::vector<Statistic>& kinds,
                               const A& scale, const A& zero_point) {
  check(edges.weight == nullptr, "statistics have no edge weights");
  StatisticsArgs a{};
  a.indptr = edges.indptr;
  a.scale = data<float>(scale, "scale", {edges.num_cols});
  a.zero_point = data<float>(zero_point, "zero_point", {edges.num_cols});
  a.kinds = kinds.data();
  a.num_kinds = static_cast<int>(kinds.size());
  a.num_cols = edges.num_cols;
  return a;
}

}  // namespace nodebits
