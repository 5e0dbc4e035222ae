// Sums of outer products.
#include <algorithm>

#include "plan/own_scale.h"
#include "plan/packing.h"
#include "plan/records.h"
#include "run/outer.h"

namespace nodebits::plan {
namespace {

// Floats that are packed while they are in the cache.
constexpr int64_t kCells = 1 << 18;

struct OuterStep final : RowsStep {
  explicit OuterStep(Reader& r)
      : edges(r),
        source(r),
        factors(r),
        order(r.optional()),
        zero(r.value()),
        factor_zero(r.value()),
        plain(r.flag()),
        epilogue(r),
        sink(r) {
    if (edges.weight) r.fail("a sum of outer products has no other weights of edges");
    if (sink.outputs.empty() && !sink.relu && !sink.post_scale) floats = sink.outs[0];
  }

  void run(Frame& f) const override {
    const SourceOf<Ref> table = source.in(f), of_edges = factors.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, table.rows());
    const OuterSum sum(adjacency, table, of_edges, f.optional(order), f.ref(zero),
                       f.ref(factor_zero), plain, f.threads);
    const int64_t rows = adjacency.rows(), cols = sum.cols();
    std::vector<float> room;
    FusedTerm term{};
    term.epilogue = epilogue_args(epilogue.in(f, rows, cols), rows, cols, &room);
    check(term.epilogue.heads == 1, "row factors of these sums have one value per row");
    if (reader != nullptr) return pack(f, sum.args(), term.epilogue, rows);
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols);
    finish.args.terms = &term;
    finish.args.num_terms = 1;
    run_fused_outer_sum(sum.args(), rows, finish.args, f.threads);
  }

  void pack(Frame& f, const OuterArgs& sum, const RescaleArgs& e, int64_t rows) const {
    const int64_t cols = e.num_cols, row_bytes = packed_row_bytes(cols, reader->codes.bits);
    uint8_t* packed = f.make(reader->packed, DType::u8, {rows, row_bytes}).as<uint8_t>();
    float* scale = f.make(reader->scale, DType::f32, {rows}).as<float>();
    const int64_t some = std::max<int64_t>(1, kCells / std::max<int64_t>(cols, 1)) * f.threads;
    float* values = f.scratch<float>(std::min(some, rows) * cols);
    for (int64_t row = 0; row < rows; row += some) {
      const int64_t end = std::min(rows, row + some);
      run_outer_sum(sum, e, row, end, values, f.threads);
      pack_own_rows(values, end - row, cols, reader->codes, {packed + row * row_bytes, scale + row},
                    f.threads);
    }
  }

  EdgesArg edges;
  SourceArg source, factors;
  In order, zero, factor_zero;
  bool plain;
  EpilogueArg epilogue;
  SinkArg sink;
};

StepPtr fused_outer_sum(Reader& r) { return std::make_unique<OuterStep>(r); }

}  // namespace

Operations outer_operations() { return {{"fused_outer_sum", fused_outer_sum}}; }

}  // namespace nodebits::plan
