// Integer products and sums that are not fused, and what makes floats of them.
#include "plan/records.h"
#include "run/drivers.h"
#include "run/propagate.h"

namespace nodebits::plan {
namespace {

StepPtr gemm(Reader& r) {
  const SourceArg source(r);
  WeightArg weight(r);
  weight.bind(r, source.num_cols);
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> x = source.in(f);
    const WeightOf<Ref> w = weight.in(f);
    const uint8_t* packed = x.checked();
    const WeightArgs args = w.args(x.num_cols);
    const int64_t rows = x.rows();
    Value& to = f.make(out, DType::i32, {rows, args.num_out});
    run_gemm(GemmArgs{packed, weight.panel(kernels()), x.num_cols, args.num_out, x.bits, x.coding},
             args, to.as<int32_t>(), rows, f.threads);
  });
}

StepPtr spmm(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r);
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> table = source.in(f);
    const int64_t sources = table.rows();
    const EdgesOf<Ref> adjacency = edges.in(f, sources);
    const int64_t rows = adjacency.rows();
    const SpmmArgs a = spmm_args(adjacency, table);
    const EdgeBlocks blocks = f.blocks(edges.indptr, a, rows, sources);
    Value& to = f.make(out, DType::i32, {rows, a.num_cols});
    run_spmm(a, to.as<int32_t>(), rows, sources, f.threads, &blocks);
  });
}

StepPtr rescale(Reader& r) {
  const In acc = r.value();
  const EpilogueArg epilogue(r);
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(acc, "acc", DType::i32, 2);
    const int64_t rows = from.shape[0], cols = from.shape[1];
    std::vector<float> room;
    RescaleArgs a = epilogue_args(epilogue.in(f, rows, cols), rows, cols, &room);
    a.acc = from.as<int32_t>();
    a.out = f.make(out, DType::f32, {rows, cols}).as<float>();
    run_rescale(a, rows, f.threads);
  });
}

StepPtr edge_softmax(Reader& r) {
  const In indptr = r.value(), indices = r.value(), score_src = r.value(), score_dst = r.value();
  const Number slope = r.number();
  const int bits = r.bits(), codes = r.out(), row_sum = r.out();
  return step([=](Frame& f) {
    const Value& src = f.expect(score_src, "score_src", DType::f32, 2);
    const int64_t edges = f.expect(indices, "indices", DType::i32, 1).shape[0];
    f.check_rows(indptr, edges);
    f.check_below(indices, src.shape[0], "indices", "score_src");
    const int64_t rows = f[indptr].shape[0] - 1, heads = src.shape[1];
    const float* dst = data<float>(f.ref(score_dst), "score_dst", {rows, heads});
    const SoftmaxArgs a{f[indptr].as<int64_t>(),
                        f[indices].as<int32_t>(),
                        src.as<float>(),
                        dst,
                        f.make(codes, DType::u8, {edges, heads}).as<uint8_t>(),
                        f.make(row_sum, DType::i32, {rows, heads}).as<int32_t>(),
                        heads,
                        static_cast<float>(f.at(slope)),
                        bits};
    run_edge_softmax(a, rows, f.threads);
  });
}

StepPtr propagate(Reader& r) {
  const EdgesArg edges(r);
  const In x = r.value(), factor = r.optional();
  const In scale = r.value(), zero_point = r.value(), made_with = r.value();
  std::vector<int> bits;
  for (int64_t b : r.wholes()) {
    if (b < 1 || b > 8) r.fail("bits must be 1 to 8");
    bits.push_back(static_cast<int>(b));
  }
  const StepsRecord steps{r.numbers(), r.flag(), r.number().constant};
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0];
    const EdgesOf<Ref> adjacency = edges.in(f, rows);
    if (adjacency.rows() != rows)
      throw ShapeError("x has " + std::to_string(rows) + " rows for a square adjacency of " +
                       std::to_string(adjacency.rows()));
    const OutRef to{&f.make(out, DType::f32, {rows, from.shape[1]})};
    const RoundsOf<Ref> rounds{f.ref(scale), f.ref(zero_point), f.ref(made_with), bits};
    PropagateArgs a = propagate_args(adjacency, f.ref(x), f.optional(factor), rounds, steps, to);
    int widest = 1;
    for (int b : bits) widest = std::max(widest, b);
    SpmmArgs sum{};
    sum.indptr = a.indptr;
    sum.indices = a.indices;
    sum.num_edges = a.num_edges;
    sum.num_cols = a.num_cols;
    sum.bits = widest;
    const EdgeBlocks blocks = f.blocks(edges.indptr, sum, rows, rows);
    a.blocks = blocks.block_rows > 0 ? &blocks : nullptr;
    run_propagate(a, rows, f.threads);
  });
}

}  // namespace

Operations product_operations() {
  return {{"gemm", gemm},
          {"spmm", spmm},
          {"rescale", rescale},
          {"edge_softmax", edge_softmax},
          {"propagate", propagate}};
}

}  // namespace nodebits::plan
