// Sums of functions of codes at an edge.
#pragma once

#include <vector>

#include "contract/gates.h"
#include "run/pairs.h"

namespace nodebits {

void run_modulated_sum(const ModulatedArgs& a, int64_t rows, int threads);
void run_gated_product(const GatedProductArgs& a, int64_t rows, int threads);

// All but the rows and the output.
template <class A>
ModulatedArgs modulated_args(const EdgesOf<A>& edges, const SourceOf<A>& source, const A& film,
                             const A& scale, const A& zero_point,
                             const std::optional<A>& row_scale) {
  check_ends(edges, source);
  ModulatedArgs a{};
  const int64_t r = edges.rows();
  a.num_cols = source.num_cols;
  a.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {edges.count()});
  a.film = data<float>(film, "film", {r, 2 * a.num_cols});
  a.scale = data<float>(scale, "scale", {a.num_cols});
  a.zero_point = data<float>(zero_point, "zero_point", {a.num_cols});
  if (row_scale) a.row_scale = data<float>(*row_scale, "row_scale", {r});
  return a;
}

// All but the rows and the output.
template <class A>
GatedProductArgs gated_product_args(const EdgesOf<A>& edges, const std::vector<SourceOf<A>>& rows,
                                    const std::optional<A>& order, const A& gates, const A& values,
                                    const A& scale, bool largest) {
  check(rows.size() == 4 || rows.size() == 6, "rows are those of both ends, or of edges too");
  check_ends(edges, rows[0]);
  GatedProductArgs a{};
  const int64_t r = edges.rows(), e = edges.count(), sources = rows[0].rows();
  const bool more = rows.size() == 6;
  const int64_t of_edges = more ? rows[4].rows() : 0;
  const int64_t counts[] = {sources, r, sources, r, of_edges, of_edges};
  for (size_t i = 0; i < rows.size(); ++i)
    check(rows[i].rows() == counts[i], "rows that meet are as many as their nodes or edges");
  a.num_cols = rows[0].num_cols;
  a.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {e});
  if (more) a.order = places_of(order, e, of_edges);
  a.gates = data<uint8_t>(gates, "gates", {kLevels});
  a.values = data<uint8_t>(values, "values", {kLevels});
  a.scale = *data<float>(scale, "scale", {1});
  a.largest = largest;
  return a;
}

// The rows of a product, kept while it runs.
template <class A>
std::vector<PlainRows> plain_rows(const std::vector<SourceOf<A>>& rows, int64_t cols, int threads,
                                  GatedProductArgs* a) {
  std::vector<PlainRows> kept;
  kept.reserve(rows.size());
  FieldRows* to[] = {&a->source,       &a->target, &a->value_source,
                     &a->value_target, &a->edge,   &a->value_edge};
  for (size_t i = 0; i < rows.size(); ++i) {
    kept.emplace_back(rows[i], cols, threads);
    *to[i] = kept.back().rows();
  }
  return kept;
}

}  // namespace nodebits
