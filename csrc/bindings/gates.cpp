// Sums of functions of codes at an edge.
#include "run/gates.h"

#include <nanobind/stl/vector.h>

#include "bindings/define.h"
#include "bindings/records.h"

namespace nodebits {
namespace {

void modulated_sum(const EdgesIn& edges, const SourceIn& source, const In& film, const In& scale,
                   const In& zero_point, const OptionalIn& row_scale, const Out& out, int threads) {
  ModulatedArgs a = modulated_args(edges, source, film, scale, zero_point, row_scale);
  const int64_t r = edges.rows();
  a.out = data<float>(out, "out", {r, a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, edges.count());
  const PlainRows rows(source, a.num_cols, threads);
  a.source = rows.rows();
  run_modulated_sum(a, r, threads);
}

void gated_product(const EdgesIn& edges, const std::vector<SourceIn>& rows, const OptionalIn& order,
                   const In& gates, const In& values, const In& scale, bool largest, const Out& out,
                   int threads) {
  GatedProductArgs a = gated_product_args(edges, rows, order, gates, values, scale, largest);
  const int64_t r = edges.rows();
  a.out = data<float>(out, "out", {r, a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, edges.count());
  const auto kept = plain_rows(rows, a.num_cols, threads, &a);
  run_gated_product(a, r, threads);
}

}  // namespace

void define_gates(nb::module_& m) {
  define(m, "modulated_sum", &modulated_sum);
  define(m, "gated_product", &gated_product);
}

}  // namespace nodebits
