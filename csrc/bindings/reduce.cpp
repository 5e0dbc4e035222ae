// Reductions of neighbours other than sums.
#include "run/reduce.h"

#include <vector>

#include "bindings/define.h"
#include "bindings/sums.h"
#include "run/fused.h"

namespace nodebits {
namespace {

void fused_extremum(const EdgesIn& edges, const SourceIn& source, bool smallest,
                    const EpilogueIn& epilogue, const SinkIn& sink, const std::vector<Out>& out,
                    int threads) {
  SpmmArgs a = spmm_args(edges, source);
  check(a.weight == nullptr && !edges.blocks, "a largest code has no edge weights and no blocks");
  a.reduce = smallest ? Reduce::kSmallest : Reduce::kLargest;
  const int64_t r = edges.rows(), s = source.rows(), c = source.num_cols;
  std::vector<float> room;
  FusedTerm term{};
  term.epilogue = epilogue_args(epilogue, r, c, &room);
  Finish<In, Out> finish(sink, out, r, c);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, a.num_edges);
  run_fused_spmm(a, EdgeBlocks{}, r, s, finish.args, threads);
}

void neighbor_statistics(const EdgesIn& edges, const SourceIn& source,
                         const std::vector<int64_t>& kinds, const In& scale, const In& zero_point,
                         const OptionalIn& moved, const Out& out, int threads) {
  const SpmmArgs sum = spmm_args(edges, source);
  const std::vector<Statistic> statistics = statistics_of(kinds);
  StatisticsArgs a = statistics_args(sum, statistics, scale, zero_point);
  const int64_t r = edges.rows(), s = source.rows();
  if (moved) a.moved = data<float>(*moved, "moved", {r, a.num_cols});
  a.out = data<float>(out, "out", {r, a.num_kinds * a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(sum.indptr, r, sum.num_edges);
  run_statistics(sum, a, r, s, threads);
}

}  // namespace

void define_reductions(nb::module_& m) {
  define(m, "fused_extremum", &fused_extremum);
  define(m, "neighbor_statistics", &neighbor_statistics);
}

}  // namespace nodebits
