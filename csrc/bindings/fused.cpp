// Fused operators: a product or a sum, its epilogue, and the quantizers that read the result.
#include "run/fused.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings/define.h"
#include "bindings/mixed.h"
#include "bindings/sums.h"

namespace nodebits {
namespace {

// How a fused operator goes on: quantizers and the matrices they fill, or one float matrix.
struct Finish {
  std::vector<FusedOutput> outputs;
  std::vector<std::vector<float>> zero_points;  // see by_width
  FusedArgs args{};

  Finish(const SinkIn& sink, const std::vector<Out>& out, int64_t rows, int64_t cols) {
    const size_t n = sink.outputs.size();
    check(out.size() == std::max<size_t>(n, 1), "one output per quantizer, or one float matrix");
    for (size_t i = 0; i < n; ++i) add(sink.outputs[i], out[i], rows, cols);
    if (n == 0) args.floats = data<float>(out[0], "out", {rows, cols});
    check(sink.post_scale.has_value() == sink.post_shift.has_value(),
          "post_scale and post_shift come together");
    if (sink.post_scale) {
      args.post_scale = data<float>(*sink.post_scale, "post_scale", {cols});
      args.post_shift = data<float>(*sink.post_shift, "post_shift", {cols});
    }
    args.relu = sink.relu;
    args.outputs = outputs.data();
    args.num_outputs = static_cast<int>(n);
    args.num_cols = cols;
  }

 private:
  void add(const OutputIn& q, const Out& out, int64_t rows, int64_t cols) {
    check_bits(q.bits);
    FusedOutput o{};
    o.bits = q.bits;
    if (q.row_factor) o.row_factor = data<float>(*q.row_factor, "row_factor", {rows});
    // Pointers into empty tensors are null: what was given is asked, not what it points to.
    const bool mixed = q.widths.has_value(), placed = q.position.has_value();
    if (mixed) place_rows(&o, *q.widths, q.position, q.shift, rows, cols);
    o.axis = placed ? 0 : size(q.scale, 0, "scale") != 1 ? 1 : -1;
    const int64_t length = o.axis == 0 ? rows : o.axis == 1 ? cols : 1;
    o.scale = data<float>(q.scale, "scale", {length});
    if (mixed) {
      zero_points.emplace_back();
      o.zero_point =
          by_width(data<float>(q.zero_point, "zero_point", {8}), o.axis, cols, &zero_points.back());
      o.packed =
          placed ? data<uint8_t>(out, "out", {o.bytes}) : data<uint8_t>(out, "out", {rows, cols});
    } else {
      o.zero_point = data<float>(q.zero_point, "zero_point", {length});
      o.packed = data<uint8_t>(out, "out", {rows, packed_row_bytes(cols, o.bits)});
      o.bytes = rows * packed_row_bytes(cols, o.bits);
    }
    outputs.push_back(o);
  }
};

void fused_spmm(const EdgesIn& edges, const SourceIn& source, const OwnIn& own,
                const EpilogueIn& epilogue, const SinkIn& sink, const std::vector<Out>& out,
                int threads) {
  const SpmmArgs a = spmm_args(edges, source);
  const int64_t r = edges.rows(), s = source.rows(), c = source.num_cols;
  const EdgeBlocks view = blocks_of(edges, s);
  const std::vector<float> none = no_bias(epilogue, c);
  FusedTerm term{};
  term.epilogue = epilogue_args(epilogue, none, r, c);
  if (own.acc_scale) term.acc_scale = data<int32_t>(*own.acc_scale, "acc_scale", {r});
  if (own.acc_offset) term.acc_offset = data<int32_t>(*own.acc_offset, "acc_offset", {r});
  Finish finish(sink, out, r, c);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  check(own.own.has_value() == own.own_factor.has_value(), "own and own_factor come together");
  if (own.own) {
    finish.args.own = data<uint8_t>(*own.own, "own", {r, packed_row_bytes(c, source.bits)});
    finish.args.own_factor = *data<float>(*own.own_factor, "own_factor", {1});
  }
  finish.args.own_bits = source.bits;
  finish.args.own_coding = source.coding;
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, a.num_edges);
  run_fused_spmm(a, view, r, s, finish.args, threads);
}

void fused_gemm(const std::vector<ProductIn>& in, const SinkIn& sink, const std::vector<Out>& out,
                int threads) {
  check(!in.empty(), "a sum of products needs at least one product");
  const int64_t rows = in[0].source.rows(), cols = in[0].weight.rows();
  const std::vector<float> none(static_cast<size_t>(cols), -0.0f);
  std::vector<FusedProduct> products;
  std::vector<FusedTerm> terms;
  for (const ProductIn& p : in) {
    const uint8_t* packed = p.source.checked();
    check(p.source.rows() == rows && p.weight.rows() == cols, "products must have one shape");
    products.push_back(
        {GemmArgs{packed, nullptr, p.source.num_cols, cols, p.source.bits, p.source.coding},
         p.weight.args(p.source.num_cols)});
    terms.push_back({epilogue_args(p.epilogue, none, rows, cols), nullptr, nullptr});
    check(terms.back().epilogue.heads == 1, "row factors of a product have one value per row");
  }
  Finish finish(sink, out, rows, cols);
  finish.args.terms = terms.data();
  finish.args.num_terms = static_cast<int>(terms.size());
  nb::gil_scoped_release release;
  run_fused_gemm(products, rows, finish.args, threads);
}

void fused_gemm_bucketed(const MixedIn& x, const WeightIn& w, const EpilogueIn& epilogue,
                         const SinkIn& sink, const std::vector<Out>& out, int threads) {
  const Buckets buckets = buckets_of(x);
  const int64_t rows = buckets.rows, cols = w.rows();
  const std::vector<float> none = no_bias(epilogue, cols);
  const FusedProduct product{
      GemmArgs{data<uint8_t>(x.packed, "packed", {buckets.bytes()}), nullptr, x.num_cols, cols, 8},
      w.args(x.num_cols)};
  const FusedTerm term{epilogue_args(epilogue, none, rows, cols), nullptr, nullptr};
  check(term.epilogue.heads == 1, "row factors of a product have one value per row");
  Finish finish(sink, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  run_fused_gemm_bucketed(product, buckets, finish.args, threads);
}

// Returns whether a value is negative, and whether all are finite.
std::tuple<bool, bool> fused_gemm_features(const In& x, int bits, bool symmetric, float min_scale,
                                           const Out& x_scale, const WeightIn& w,
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
  const FusedProduct product{GemmArgs{nullptr, nullptr, depth, cols, bits}, w.args(depth)};
  const std::vector<float> none = no_bias(epilogue, cols);
  FusedTerm term{epilogue_args(epilogue, none, rows, cols), nullptr, nullptr};
  term.epilogue.row_scale = scan.scale;
  Finish finish(sink, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  const ScanFlags found = run_fused_gemm_features(product, scan, rows, finish.args, threads);
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
