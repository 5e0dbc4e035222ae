// Scores and sums of edges at which the codes of two rows meet.
#include "plan/records.h"
#include "run/pairs.h"

namespace nodebits::plan {
namespace {

// Rows of edges that are added to those of sources, of a list of them.
struct JoinedArg {
  SourceArg rows;
  In order;
};

std::vector<JoinedArg> read_joined(Reader& r) {
  const std::vector<In> packed = r.values();
  const std::vector<int64_t> bits = r.wholes();
  const std::vector<Int> cols = r.integers();
  const std::vector<int64_t> coding = r.wholes();
  const std::vector<In> order = r.optionals();
  const size_t n = packed.size();
  for (size_t size : {bits.size(), cols.size(), coding.size(), order.size()}) {
    if (size != n) r.fail("the lists of the joined rows have different lengths");
  }
  std::vector<JoinedArg> made(n);
  for (size_t i = 0; i < n; ++i) {
    if (bits[i] < 1 || bits[i] > 8) r.fail("bits must be 1 to 8");
    made[i].rows.packed = packed[i];
    made[i].rows.bits = static_cast<int>(bits[i]);
    made[i].rows.num_cols = cols[i];
    made[i].rows.coding = static_cast<int>(coding[i]);
    made[i].order = order[i];
  }
  return made;
}

std::vector<JoinedOf<Ref>> joined_in(Frame& f, const std::vector<JoinedArg>& joined) {
  std::vector<JoinedOf<Ref>> made;
  made.reserve(joined.size());
  for (const JoinedArg& one : joined) {
    const SourceOf<Ref> rows = one.rows.in(f);
    made.emplace_back(rows.packed, rows.bits, rows.num_cols, rows.coding, f.optional(one.order));
  }
  return made;
}

// What both kinds of scores read.
struct ScoresArg {
  EdgesArg edges;
  SourceArg source, target;
  std::vector<JoinedArg> joined;
  In vector, floor, factor, source_factor;

  explicit ScoresArg(Reader& r)
      : edges(r),
        source(r),
        target(r),
        joined(read_joined(r)),
        vector(r.optional()),
        floor(r.optional()),
        factor(r.value()),
        source_factor(r.value()) {
    if (joined.size() > 1) r.fail("one kind of rows of edges joins the sources");
  }

  // Calls run(args, edges, rows).
  template <class F>
  void in(Frame& f, const F& run) const {
    const SourceOf<Ref> theirs = source.in(f), mine = target.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    ScoreArgs a = score_args(adjacency, theirs, mine, f.optional(vector), f.optional(floor),
                             f.ref(factor), f.ref(source_factor));
    const PlainRows one(theirs, a.num_cols, f.threads), other(mine, a.num_cols, f.threads);
    const JoinedRows of_edges(joined_in(f, joined), 0, adjacency.count(), a.num_cols, f.threads);
    a.source = one.rows();
    a.target = other.rows();
    a.joined = of_edges.fields();
    run(a, adjacency.count(), adjacency.rows());
  }
};

StepPtr pair_scores(Reader& r) {
  const ScoresArg scores(r);
  const int out = r.out();
  return step([=](Frame& f) {
    scores.in(f, [&](const ScoreArgs& a, int64_t edges, int64_t rows) {
      float* made = f.make(out, DType::f32, {edges, a.heads}).as<float>();
      run_pair_scores(a, made, rows, f.threads);
    });
  });
}

StepPtr attention_codes(Reader& r) {
  const ScoresArg scores(r);
  const int bits = r.bits(), codes = r.out(), row_sum = r.out();
  return step([=](Frame& f) {
    scores.in(f, [&](const ScoreArgs& a, int64_t edges, int64_t rows) {
      const PairSoftmax to{f.make(codes, DType::u8, {edges, a.heads}).as<uint8_t>(),
                           f.make(row_sum, DType::i32, {rows, a.heads}).as<int32_t>(), bits};
      run_attention_codes(a, to, rows, f.threads);
    });
  });
}

// Rows of sources, joined by those of edges where there are some, rectified and aggregated.
struct MessagesArg {
  EdgesArg edges;
  SourceArg source;
  std::vector<JoinedArg> joined;
  In floor;

  explicit MessagesArg(Reader& r) : edges(r), source(r), joined(read_joined(r)), floor(r.value()) {
    if (joined.size() > 1) r.fail("one kind of rows of edges joins the sources");
  }

  template <class F>
  void in(Frame& f, In zero_point, In scale, int out, const F& run) const {
    const SourceOf<Ref> theirs = source.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    const int64_t cols = theirs.num_cols, rows = adjacency.rows();
    PairSumArgs a = pair_sum_args(adjacency, theirs, f.flat(zero_point, "zero_point", cols),
                                  f.flat(scale, "scale", cols));
    a.floor = bounded(f.ref(floor), "floor", cols, 0, 511);
    const PlainRows one(theirs, cols, f.threads);
    const JoinedRows of_edges(joined_in(f, joined), 0, adjacency.count(), cols, f.threads);
    a.source = one.rows();
    a.joined = of_edges.fields();
    a.out = f.make(out, DType::f32, {rows, cols}).as<float>();
    run(a, rows);
  }
};

StepPtr rectified_sum(Reader& r) {
  const MessagesArg messages(r);
  const In zero_point = r.value(), scale = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    messages.in(f, zero_point, scale, out,
                [&](const PairSumArgs& a, int64_t rows) { run_rectified_sum(a, rows, f.threads); });
  });
}

StepPtr rectified_softmax(Reader& r) {
  const MessagesArg messages(r);
  const In table = r.value();
  const bool falling = r.flag();
  const In zero_point = r.value(), scale = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    messages.in(f, zero_point, scale, out, [&](PairSumArgs a, int64_t rows) {
      a.table = softmax_table(f.ref(table));
      a.falling = falling;
      run_rectified_softmax(a, rows, f.threads);
    });
  });
}

StepPtr gated_sum(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r), target(r), value(r);
  const std::vector<JoinedArg> joined = read_joined(r);
  const In table = r.value();
  const int gate_zero = r.whole();
  const In zero_point = r.value(), scale = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> theirs = source.in(f), mine = target.in(f), weighed = value.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    const int64_t cols = theirs.num_cols, rows = adjacency.rows(), count = adjacency.count();
    PairSumArgs a = pair_sum_args(adjacency, theirs, f.flat(zero_point, "zero_point", cols),
                                  f.flat(scale, "scale", cols));
    check_gated(adjacency, theirs, mine, weighed, joined.size(), gate_zero);
    a.table = data<uint8_t>(f.ref(table), "table", {kGates});
    a.gate_zero = gate_zero;
    const PlainRows one(theirs, cols, f.threads), other(mine, cols, f.threads),
        third(weighed, cols, f.threads);
    const std::vector<JoinedOf<Ref>> all = joined_in(f, joined);
    const JoinedRows of_edges(all, 0, count, cols, f.threads), more(all, 1, count, cols, f.threads);
    a.source = one.rows();
    a.target = other.rows();
    a.value = third.rows();
    a.joined = of_edges.fields();
    a.joined_value = more.fields();
    a.out = f.make(out, DType::f32, {rows, cols}).as<float>();
    run_gated_sum(a, rows, f.threads);
  });
}

}  // namespace

Operations pair_operations() {
  return {{"pair_scores", pair_scores},
          {"attention_codes", attention_codes},
          {"rectified_sum", rectified_sum},
          {"rectified_softmax", rectified_softmax},
          {"gated_sum", gated_sum}};
}

}  // namespace nodebits::plan
