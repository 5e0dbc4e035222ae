// Scores and sums of edges at which the codes of two rows meet.
#include "run/pairs.h"

#include "bindings/define.h"
#include "bindings/records.h"

namespace nodebits {
namespace {

using Joined = std::vector<JoinedIn>;

// Calls run(args, rows) once the rows are there.
template <class F>
void with_scores(const EdgesIn& edges, const SourceIn& source, const SourceIn& target,
                 const Joined& joined, ScoreArgs a, int threads, const F& run) {
  const int64_t r = edges.rows(), e = edges.count();
  check(joined.size() <= 1, "one kind of rows of edges joins the sources");
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  const PlainRows theirs(source, a.num_cols, threads), mine(target, a.num_cols, threads);
  const JoinedRows of_edges(joined, 0, e, a.num_cols, threads);
  a.source = theirs.rows();
  a.target = mine.rows();
  a.joined = of_edges.fields();
  run(a, r);
}

void pair_scores(const EdgesIn& edges, const SourceIn& source, const SourceIn& target,
                 const Joined& joined, const OptionalIn& vector, const OptionalIn& floor,
                 const In& factor, const In& source_factor, const Out& out, int threads) {
  const ScoreArgs a = score_args(edges, source, target, vector, floor, factor, source_factor);
  float* scores = data<float>(out, "out", {edges.count(), a.heads});
  with_scores(edges, source, target, joined, a, threads, [&](const ScoreArgs& all, int64_t rows) {
    run_pair_scores(all, scores, rows, threads);
  });
}

void attention_codes(const EdgesIn& edges, const SourceIn& source, const SourceIn& target,
                     const Joined& joined, const OptionalIn& vector, const OptionalIn& floor,
                     const In& factor, const In& source_factor, int bits, const Out& codes,
                     const Out& row_sum, int threads) {
  check_bits(bits);
  const ScoreArgs a = score_args(edges, source, target, vector, floor, factor, source_factor);
  const PairSoftmax to{data<uint8_t>(codes, "codes", {edges.count(), a.heads}),
                       data<int32_t>(row_sum, "row_sum", {edges.rows(), a.heads}), bits};
  with_scores(edges, source, target, joined, a, threads, [&](const ScoreArgs& all, int64_t rows) {
    run_attention_codes(all, to, rows, threads);
  });
}

// Runs a sum of messages of sources and, where there are some, of edges.
template <class F>
void with_messages(const EdgesIn& edges, const SourceIn& source, const Joined& joined,
                   const In& floor, const Out& out, PairSumArgs a, int threads, const F& run) {
  const int64_t r = edges.rows(), e = edges.count();
  check(joined.size() <= 1, "one kind of rows of edges joins the sources");
  a.floor = bounded(floor, "floor", a.num_cols, 0, 511);
  a.out = data<float>(out, "out", {r, a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  const PlainRows theirs(source, a.num_cols, threads);
  const JoinedRows of_edges(joined, 0, e, a.num_cols, threads);
  a.source = theirs.rows();
  a.joined = of_edges.fields();
  run(a, r, threads);
}

void rectified_sum(const EdgesIn& edges, const SourceIn& source, const Joined& joined,
                   const In& floor, const In& zero_point, const In& scale, const Out& out,
                   int threads) {
  const PairSumArgs a = pair_sum_args(edges, source, zero_point, scale);
  with_messages(edges, source, joined, floor, out, a, threads, run_rectified_sum);
}

void rectified_softmax(const EdgesIn& edges, const SourceIn& source, const Joined& joined,
                       const In& floor, const In& table, bool falling, const In& zero_point,
                       const In& scale, const Out& out, int threads) {
  PairSumArgs a = pair_sum_args(edges, source, zero_point, scale);
  a.table = softmax_table(table);
  a.falling = falling;
  with_messages(edges, source, joined, floor, out, a, threads, run_rectified_softmax);
}

void gated_sum(const EdgesIn& edges, const SourceIn& source, const SourceIn& target,
               const SourceIn& value, const Joined& joined, const In& table, int gate_zero,
               const In& zero_point, const In& scale, const Out& out, int threads) {
  PairSumArgs a = pair_sum_args(edges, source, zero_point, scale);
  const int64_t r = edges.rows(), e = edges.count();
  check_gated(edges, source, target, value, joined.size(), gate_zero);
  a.table = data<uint8_t>(table, "table", {kGates});
  a.gate_zero = gate_zero;
  a.out = data<float>(out, "out", {r, a.num_cols});
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  const PlainRows theirs(source, a.num_cols, threads), mine(target, a.num_cols, threads),
      weighed(value, a.num_cols, threads);
  const JoinedRows of_edges(joined, 0, e, a.num_cols, threads),
      more(joined, 1, e, a.num_cols, threads);
  a.source = theirs.rows();
  a.target = mine.rows();
  a.value = weighed.rows();
  a.joined = of_edges.fields();
  a.joined_value = more.fields();
  run_gated_sum(a, r, threads);
}

}  // namespace

void define_pairs(nb::module_& m) {
  define(m, "pair_scores", &pair_scores);
  define(m, "attention_codes", &attention_codes);
  define(m, "rectified_sum", &rectified_sum);
  define(m, "rectified_softmax", &rectified_softmax);
  define(m, "gated_sum", &gated_sum);
}

}  // namespace nodebits
