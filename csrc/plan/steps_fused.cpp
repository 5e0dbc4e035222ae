// Fused operators.
#include "plan/lines.h"
#include "plan/packing.h"
#include "plan/records.h"
#include "run/fused.h"

namespace nodebits::plan {
namespace {

StepPtr fused_spmm(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r);
  const OwnArg own(r);
  const EpilogueArg epilogue(r);
  const SinkArg sink(r);
  // Whether a row is a function of the sum of codes, its own among them.
  std::shared_ptr<const SumLines> lines;
  if (!edges.weight && source.coding == 0 && (source.bits <= 2 || source.bits == 4) &&
      !own.acc_scale && !own.acc_offset && r.constant_or_null(own.own_factor) &&
      epilogue.by_column(r) && sink.by_column(r) && sink.outputs.size() == 1)
    lines = std::make_shared<const SumLines>();
  return rows_step(sink.outs, sink.outputs.empty(), [=](Frame& f, const OwnPackStep* reader) {
    const SourceOf<Ref> table = source.in(f);
    const int64_t sources = table.rows(), cols = table.num_cols;
    const EdgesOf<Ref> adjacency = edges.in(f, sources);
    const int64_t rows = adjacency.rows();
    const SpmmArgs a = spmm_args(adjacency, table);
    std::vector<float> room;
    FusedTerm term{};
    term.epilogue = epilogue_args(epilogue.in(f, rows, cols), rows, cols, &room);
    const EdgeBlocks blocks = f.blocks(edges.indptr, a, rows, sources);
    const bool packs = reader != nullptr && makes_whole_rows(blocks);
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols, packs);
    finish.args.terms = &term;
    finish.args.num_terms = 1;
    take_own(own.in(f), table, rows, &term, &finish.args);
    if (packs) return run_packed_rows(f, *reader, a, rows, sources, finish.args);
    const Kernels& k = kernels();
    const bool with_own = finish.args.own != nullptr;
    SumLineArgs by_line{};
    if (lines != nullptr && cols > 0 && pays_sum_lines(k, a, blocks, rows, with_own) &&
        lines->fill(k, finish.args, a.bits, with_own, &by_line)) {
      by_line.sum = a;
      run_sum_lines(by_line, rows, sources, finish.args, f.threads);
    } else {
      run_fused_spmm(a, blocks, rows, sources, finish.args, f.threads);
    }
  });
}

struct ProductArg {
  SourceArg source;
  WeightArg weight;
  EpilogueArg epilogue;
};

std::vector<ProductArg> read_products(Reader& r) {
  const std::vector<In> packed = r.values();
  const std::vector<int64_t> bits = r.wholes();
  const std::vector<Int> cols = r.integers();
  const std::vector<int64_t> coding = r.wholes();
  const std::vector<In> weight = r.values();
  const std::vector<int64_t> w_bits = r.wholes();
  const std::vector<bool> midrise = r.flags();
  const std::vector<In> col_scale = r.values(), col_offset = r.optionals(),
                        row_offset = r.optionals(), row_scale = r.optionals(), bias = r.optionals();
  const size_t n = packed.size();
  if (n == 0) r.fail("a sum of products needs at least one product");
  for (size_t size :
       {bits.size(), cols.size(), coding.size(), weight.size(), w_bits.size(), midrise.size(),
        col_scale.size(), col_offset.size(), row_offset.size(), row_scale.size(), bias.size()}) {
    if (size != n) r.fail("the lists of the products have different lengths");
  }
  std::vector<ProductArg> made(n);
  for (size_t i = 0; i < n; ++i) {
    if (bits[i] < 1 || bits[i] > 8 || w_bits[i] < 1 || w_bits[i] > 8) r.fail("bits must be 1 to 8");
    ProductArg& p = made[i];
    p.source.packed = packed[i];
    p.source.bits = static_cast<int>(bits[i]);
    p.source.num_cols = cols[i];
    p.source.coding = static_cast<int>(coding[i]);
    p.weight.packed = weight[i];
    p.weight.bits = static_cast<int>(w_bits[i]);
    p.weight.midrise = midrise[i];
    p.weight.bind(r, cols[i]);
    p.epilogue.col_scale = col_scale[i];
    p.epilogue.col_offset = col_offset[i];
    p.epilogue.row_offset = row_offset[i];
    p.epilogue.row_scale = row_scale[i];
    p.epilogue.bias = bias[i];
  }
  return made;
}

StepPtr fused_gemm(Reader& r) {
  const std::vector<ProductArg> terms_of = read_products(r);
  const SinkArg sink(r);
  std::shared_ptr<const ProductLines> lines;
  if (terms_of.size() == 1 && terms_of[0].weight.panels != nullptr &&
      terms_of[0].epilogue.by_column(r) && sink.by_column(r))
    lines = std::make_shared<const ProductLines>();
  return step([=](Frame& f) {
    const Kernels& k = kernels();
    const int64_t rows = f.expect(terms_of[0].source.packed, "packed", DType::u8, 2).shape[0];
    const int64_t cols = f.expect(terms_of[0].weight.packed, "w_packed", DType::u8, 2).shape[0];
    std::vector<float> room;
    std::vector<FusedProduct> products;
    std::vector<FusedTerm> terms;
    products.reserve(terms_of.size());
    terms.reserve(terms_of.size());
    for (const ProductArg& p : terms_of) {
      const SourceOf<Ref> x = p.source.in(f);
      const WeightOf<Ref> w = p.weight.in(f);
      const uint8_t* packed = x.checked();
      check(x.rows() == rows && w.rows() == cols, "products must have one shape");
      products.push_back({GemmArgs{packed, p.weight.panel(k), x.num_cols, cols, x.bits, x.coding},
                          w.args(x.num_cols)});
      terms.push_back(
          {epilogue_args(p.epilogue.in(f, rows, cols), rows, cols, &room), nullptr, nullptr});
      check(terms.back().epilogue.heads == 1, "row factors of a product have one value per row");
    }
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols);
    finish.args.terms = terms.data();
    finish.args.num_terms = static_cast<int>(terms.size());
    if (lines != nullptr) {
      const int64_t most = largest_sum(products[0].weight, products[0].args.x_bits);
      finish.args.lines = lines->of(k, finish.args, -most, most);
    }
    run_fused_gemm(products, rows, finish.args, f.threads);
  });
}

}  // namespace

Operations fused_operations() { return {{"fused_spmm", fused_spmm}, {"fused_gemm", fused_gemm}}; }

}  // namespace nodebits::plan
