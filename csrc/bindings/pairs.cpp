// Scores and sums of edges at which the codes of two rows meet.
#include "run/pairs.h"

#include "bindings/define.h"
#include "bindings/records.h"

namespace nodebits {
namespace {

void attention_codes(const EdgesIn& edges, const SourceIn& source, const SourceIn& target,
                     const OptionalIn& vector, const OptionalIn& floor, const In& factor,
                     const In& source_factor, int bits, const Out& codes, const Out& row_sum,
                     int threads) {
  check_bits(bits);
  ScoreArgs a = score_args(edges, source, target, vector, floor, factor, source_factor);
  const int64_t r = edges.rows(), e = edges.count();
  const PairSoftmax to{data<uint8_t>(codes, "codes", {e, a.heads}),
                       data<int32_t>(row_sum, "row_sum", {r, a.heads}), bits};
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  const PlainRows theirs(source, a.num_cols, threads), mine(target, a.num_cols, threads);
  a.source = theirs.rows();
  a.target = mine.rows();
  run_attention_codes(a, to, r, threads);
}

void rectified_sum(const EdgesIn& edges, const SourceIn& source, const SourceIn& features,
                   const OptionalIn& order, const In& floor, const In& zero_point, const In& scale,
                   const Out& out, int threads) {
  PairSumArgs a = pair_sum_args(edges, source, zero_point, scale);
  const int64_t r = edges.rows(), e = edges.count();
  a.floor = bounded(floor, "floor", a.num_cols, 0, 511);
  a.order = places_of(order, e, features.rows());
  a.out = data<float>(out, "out", {r, a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  const PlainRows theirs(source, a.num_cols, threads), of_edges(features, a.num_cols, threads);
  a.source = theirs.rows();
  a.other = of_edges.rows();
  run_rectified_sum(a, r, threads);
}

void gated_sum(const EdgesIn& edges, const SourceIn& source, const SourceIn& target,
               const SourceIn& value, const In& table, const In& zero_point, const In& scale,
               const Out& out, int threads) {
  PairSumArgs a = pair_sum_args(edges, source, zero_point, scale);
  const int64_t r = edges.rows(), e = edges.count();
  check(target.rows() == r, "target has a row for every row of indptr");
  check(value.rows() == source.rows(), "value has a row for every row of the source");
  a.table = data<uint8_t>(table, "table", {512});
  a.out = data<float>(out, "out", {r, a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  const PlainRows theirs(source, a.num_cols, threads), mine(target, a.num_cols, threads),
      weighed(value, a.num_cols, threads);
  a.source = theirs.rows();
  a.other = mine.rows();
  a.value = weighed.rows();
  run_gated_sum(a, r, threads);
}

}  // namespace

void define_pairs(nb::module_& m) {
  define(m, "attention_codes", &attention_codes);
  define(m, "rectified_sum", &rectified_sum);
  define(m, "gated_sum", &gated_sum);
}

}  // namespace nodebits
