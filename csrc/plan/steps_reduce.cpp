// Reductions of neighbours other than sums.
#include "plan/packing.h"
#include "plan/records.h"
#include "run/fused.h"
#include "run/reduce.h"

namespace nodebits::plan {
namespace {

StepPtr fused_extremum(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r);
  const bool smallest = r.flag();
  const EpilogueArg epilogue(r);
  const SinkArg sink(r);
  if (edges.weight) r.fail("a largest code has no edge weights");
  return rows_step(sink.outs, sink.outputs.empty(), [=](Frame& f, const OwnPackStep* reader) {
    const SourceOf<Ref> table = source.in(f);
    const int64_t sources = table.rows(), cols = table.num_cols;
    const EdgesOf<Ref> adjacency = edges.in(f, sources);
    const int64_t rows = adjacency.rows();
    SpmmArgs a = spmm_args(adjacency, table);
    a.reduce = smallest ? Reduce::kSmallest : Reduce::kLargest;
    std::vector<float> room;
    FusedTerm term{};
    term.epilogue = epilogue_args(epilogue.in(f, rows, cols), rows, cols, &room);
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols, reader != nullptr);
    finish.args.terms = &term;
    finish.args.num_terms = 1;
    if (reader != nullptr) return run_packed_rows(f, *reader, a, rows, sources, finish.args);
    run_fused_spmm(a, EdgeBlocks{}, rows, sources, finish.args, f.threads);
  });
}

StepPtr neighbor_statistics(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r);
  const std::vector<Statistic> kinds = statistics_of(r.wholes());
  const In scale = r.value(), zero_point = r.value(), moved = r.optional();
  const int out = r.out();
  if (edges.weight) r.fail("statistics have no edge weights");
  return step([=](Frame& f) {
    const SourceOf<Ref> table = source.in(f);
    const int64_t sources = table.rows(), cols = table.num_cols;
    const EdgesOf<Ref> adjacency = edges.in(f, sources);
    const int64_t rows = adjacency.rows();
    const SpmmArgs sum = spmm_args(adjacency, table);
    StatisticsArgs a = statistics_args(sum, kinds, f.flat(scale, "scale", cols),
                                       f.flat(zero_point, "zero_point", cols));
    if (moved) a.moved = data<float>(f.ref(moved), "moved", {rows, cols});
    a.out = f.make(out, DType::f32, {rows, a.num_kinds * cols}).as<float>();
    run_statistics(sum, a, rows, sources, f.threads);
  });
}

}  // namespace

Operations reduce_operations() {
  return {{"fused_extremum", fused_extremum}, {"neighbor_statistics", neighbor_statistics}};
}

}  // namespace nodebits::plan
