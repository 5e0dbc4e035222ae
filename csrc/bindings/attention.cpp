// Attention between the rows of a graph.
#include "run/attention.h"

#include "bindings/define.h"
#include "bindings/records.h"

namespace nodebits {
namespace {

void graph_attention(const In& query, const In& key, const In& value, const OptionalIn& batch,
                     int64_t heads, const Out& out, int threads) {
  const int64_t n = size(query, 0, "query"), c = size(query, 1, "query");
  check(heads > 0 && c % heads == 0, "heads must divide the columns");
  const AttentionArgs a{data<float>(query, "query", {n, c}),
                        data<float>(key, "key", {n, c}),
                        data<float>(value, "value", {n, c}),
                        batch ? data<int64_t>(*batch, "batch", {n}) : nullptr,
                        data<float>(out, "out", {n, c}),
                        n,
                        heads,
                        c / heads};
  nb::gil_scoped_release release;
  check(run_graph_attention(a, threads), "batch must ascend");
}

}  // namespace

void define_attention(nb::module_& m) { define(m, "graph_attention", &graph_attention); }

}  // namespace nodebits
