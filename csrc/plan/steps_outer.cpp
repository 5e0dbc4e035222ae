// Sums of outer products.
#include "plan/records.h"
#include "run/outer.h"

namespace nodebits::plan {
namespace {

StepPtr fused_outer_sum(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r), factors(r);
  const In order = r.optional(), zero = r.value(), factor_zero = r.value();
  const bool plain = r.flag();
  const EpilogueArg epilogue(r);
  const SinkArg sink(r);
  if (edges.weight) r.fail("a sum of outer products has no other weights of edges");
  return step([=](Frame& f) {
    const SourceOf<Ref> table = source.in(f), of_edges = factors.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, table.rows());
    const OuterSum sum(adjacency, table, of_edges, f.optional(order), f.ref(zero),
                       f.ref(factor_zero), plain, f.threads);
    const int64_t rows = adjacency.rows(), cols = sum.cols();
    std::vector<float> room;
    FusedTerm term{};
    term.epilogue = epilogue_args(epilogue.in(f, rows, cols), rows, cols, &room);
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols);
    finish.args.terms = &term;
    finish.args.num_terms = 1;
    run_fused_outer_sum(sum.args(), rows, finish.args, f.threads);
  });
}

}  // namespace

Operations outer_operations() { return {{"fused_outer_sum", fused_outer_sum}}; }

}  // namespace nodebits::plan
