// Sums of outer products.
#include "run/outer.h"

#include <vector>

#include "bindings/define.h"
#include "bindings/records.h"

namespace nodebits {
namespace {

void fused_outer_sum(const EdgesIn& edges, const SourceIn& source, const SourceIn& factors,
                     const OptionalIn& order, const In& zero, const In& factor_zero, bool plain,
                     const EpilogueIn& epilogue, const SinkIn& sink, const std::vector<Out>& out,
                     int threads) {
  const OuterSum sum(edges, source, factors, order, zero, factor_zero, plain, threads);
  const int64_t r = edges.rows(), c = sum.cols();
  std::vector<float> room;
  FusedTerm term{};
  term.epilogue = epilogue_args(epilogue, r, c, &room);
  check(term.epilogue.heads == 1, "row factors of these sums have one value per row");
  Finish<In, Out> finish(sink, out, r, c);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  check_indptr(sum.args().indptr, r, edges.count());
  run_fused_outer_sum(sum.args(), r, finish.args, threads);
}

}  // namespace

void define_outer(nb::module_& m) { define(m, "fused_outer_sum", &fused_outer_sum); }

}  // namespace nodebits
