// Fused operators: a product or a sum, its epilogue, and the quantizers that read the result.
#include "run/fused.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings/define.h"
#include "bindings/sums.h"
#include "run/features.h"

namespace nodebits {
namespace {

using FinishOut = Finish<In, Out>;

void fused_spmm(const EdgesIn& edges, const SourceIn& source, const OwnIn& own,
                const EpilogueIn& epilogue, const SinkIn& sink, const std::vector<Out>& out,
                int threads) {
  const SpmmArgs a = spmm_args(edges, source);
  const int64_t r = edges.rows(), s = source.rows(), c = source.num_cols;
  const EdgeBlocks view = blocks_of(edges, s);
  std::vector<float> room;
  FusedTerm term{};
  term.epilogue = epilogue_args(epilogue, r, c, &room);
  FinishOut finish(sink, out, r, c);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  take_own(own, source, r, &term, &finish.args);
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, a.num_edges);
  run_fused_spmm(a, view, r, s, finish.args, threads);
}

void fused_gemm(const std::vector<ProductIn>& in, const SinkIn& sink, const std::vector<Out>& out,
                int threads) {
  check(!in.empty(), "a sum of products needs at least one product");
  const int64_t rows = in[0].source.rows(), cols = in[0].weight.rows();
  std::vector<float> room;
  std::vector<FusedProduct> products;
  std::vector<FusedTerm> terms;
  for (const ProductIn& p : in) {
    const uint8_t* packed = p.source.checked();
    check(p.source.rows() == rows && p.weight.rows() == cols, "products must have one shape");
    products.push_back(
        {GemmArgs{packed, nullptr, p.source.num_cols, cols, p.source.bits, p.source.coding},
         p.weight.args(p.source.num_cols)});
    terms.push_back({epilogue_args(p.epilogue, rows, cols, &room), nullptr, nullptr});
    check(terms.back().epilogue.heads == 1, "row factors of a product have one value per row");
  }
  FinishOut finish(sink, out, rows, cols);
  finish.args.terms = terms.data();
  finish.args.num_terms = static_cast<int>(terms.size());
  nb::gil_scoped_release release;
  run_fused_gemm(products, rows, finish.args, threads);
}

void fused_gemm_bucketed(const MixedIn& x, const WeightIn& w, const EpilogueIn& epilogue,
                         const SinkIn& sink, const std::vector<Out>& out, int threads) {
  const Buckets buckets = buckets_of(x);
  const int64_t rows = buckets.rows, cols = w.rows();
  std::vector<float> room;
  const FusedProduct product{
      GemmArgs{data<uint8_t>(x.packed, "packed", {buckets.bytes()}), nullptr, x.num_cols, cols, 8},
      w.args(x.num_cols)};
  const FusedTerm term{epilogue_args(epilogue, rows, cols, &room), nullptr, nullptr};
  check(term.epilogue.heads == 1, "row factors of a product have one value per row");
  FinishOut finish(sink, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  run_fused_gemm_bucketed(product, buckets, finish.args, threads);
}

// Returns whether a value is negative, and whether all are finite.
std::tuple<bool, bool> fused_gemm_features(const In& x, int bits, bool symmetric, bool trim,
                                           float min_scale, const Out& x_scale, const WeightIn& w,
                                           const EpilogueIn& epilogue, const SinkIn& sink,
                                           const std::vector<Out>& out, int threads) {
  check_bits(bits);
  const int64_t rows = size(x, 0, "x"), depth = size(x, 1, "x"), cols = w.rows();
  check(!epilogue.row_offset && !epilogue.row_scale, "the row factors are the features' scales");
  ScanArgs scan{};
  scan.x = data<float>(x, "x", {rows, depth});
  scan.scale = data<float>(x_scale, "x_scale", {rows});
  scan.num_cols = depth;
  scan.min_scale = min_scale;
  scan.bits = bits;
  scan.symmetric = symmetric;
  scan.trim = trim;
  const FusedProduct product{GemmArgs{nullptr, nullptr, depth, cols, bits}, w.args(depth)};
  std::vector<float> room;
  FusedTerm term{epilogue_args(epilogue, rows, cols, &room), nullptr, nullptr};
  term.epilogue.row_scale = scan.scale;
  FinishOut finish(sink, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  const ScanFlags found = run_fused_gemm_features(product, {}, scan, rows, finish.args, threads);
  return {found.negative, found.finite};
}

}  // namespace

void define_fused(nb::module_& m) {
  define(m, "fused_spmm", &fused_spmm);
  define(m, "fused_gemm", &fused_gemm);
  define(m, "fused_gemm_bucketed", &fused_gemm_bucketed);
  define(m, "fused_gemm_features", &fused_gemm_features);
}

}  // namespace nodebits
