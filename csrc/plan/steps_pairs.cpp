// Scores and sums of edges at which the codes of two rows meet.
#include "plan/records.h"
#include "run/pairs.h"

namespace nodebits::plan {
namespace {

StepPtr attention_codes(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r), target(r);
  const In vector = r.optional(), floor = r.optional();
  const In factor = r.value(), source_factor = r.value();
  const int bits = r.bits(), codes = r.out(), row_sum = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> theirs = source.in(f), mine = target.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    ScoreArgs a = score_args(adjacency, theirs, mine, f.optional(vector), f.optional(floor),
                             f.ref(factor), f.ref(source_factor));
    const int64_t rows = adjacency.rows();
    const PairSoftmax to{f.make(codes, DType::u8, {adjacency.count(), a.heads}).as<uint8_t>(),
                         f.make(row_sum, DType::i32, {rows, a.heads}).as<int32_t>(), bits};
    const PlainRows one(theirs, a.num_cols, f.threads), other(mine, a.num_cols, f.threads);
    a.source = one.rows();
    a.target = other.rows();
    run_attention_codes(a, to, rows, f.threads);
  });
}

StepPtr rectified_sum(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r), features(r);
  const In order = r.optional(), floor = r.value(), zero_point = r.value(), scale = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> theirs = source.in(f), of_edges = features.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    const int64_t cols = theirs.num_cols, rows = adjacency.rows();
    PairSumArgs a = pair_sum_args(adjacency, theirs, f.flat(zero_point, "zero_point", cols),
                                  f.flat(scale, "scale", cols));
    a.floor = bounded(f.ref(floor), "floor", cols, 0, 511);
    a.order = places_of(f.optional(order), adjacency.count(), of_edges.rows());
    a.out = f.make(out, DType::f32, {rows, cols}).as<float>();
    const PlainRows one(theirs, cols, f.threads), other(of_edges, cols, f.threads);
    a.source = one.rows();
    a.other = other.rows();
    run_rectified_sum(a, rows, f.threads);
  });
}

StepPtr gated_sum(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r), target(r), value(r);
  const In table = r.value(), zero_point = r.value(), scale = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> theirs = source.in(f), mine = target.in(f), weighed = value.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    const int64_t cols = theirs.num_cols, rows = adjacency.rows();
    PairSumArgs a = pair_sum_args(adjacency, theirs, f.flat(zero_point, "zero_point", cols),
                                  f.flat(scale, "scale", cols));
    check(mine.rows() == rows, "target has a row for every row of indptr");
    check(weighed.rows() == theirs.rows(), "value has a row for every row of the source");
    a.table = data<uint8_t>(f.ref(table), "table", {512});
    a.out = f.make(out, DType::f32, {rows, cols}).as<float>();
    const PlainRows one(theirs, cols, f.threads), other(mine, cols, f.threads),
        third(weighed, cols, f.threads);
    a.source = one.rows();
    a.other = other.rows();
    a.value = third.rows();
    run_gated_sum(a, rows, f.threads);
  });
}

}  // namespace

Operations pair_operations() {
  return {{"attention_codes", attention_codes},
          {"rectified_sum", rectified_sum},
          {"gated_sum", gated_sum}};
}

}  // namespace nodebits::plan
