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

// The quantizers that read a fused result, as Python passes them: one entry each.
struct Quantizers {
  const Ins& scale;
  const Ins& zero_point;
  const std::vector<int>& bits;
  const OptionalIns& row_factor;
  const OptionalIns& widths;
  const OptionalIns& position;
  const OptionalIns& shift;
};

// A scale and a shift per column of a fused result, or neither.
struct Affine {
  const OptionalIn& scale;
  const OptionalIn& shift;
};

// How a fused operator goes on: quantizers and the matrices they fill, or one float matrix.
struct Finish {
  std::vector<FusedOutput> outputs;
  std::vector<std::vector<float>> zero_points;  // see by_width
  FusedArgs args{};

  Finish(bool relu, const Quantizers& q, const Affine& post, const std::vector<Out>& out,
         int64_t rows, int64_t cols) {
    const size_t n = q.bits.size();
    check(q.scale.size() == n && q.zero_point.size() == n && q.row_factor.size() == n &&
              q.widths.size() == n && q.position.size() == n && q.shift.size() == n,
          "every quantizer needs a scale, a zero point, a width, and a row factor, widths, "
          "positions and shifts or None");
    check(out.size() == std::max<size_t>(n, 1), "one output per quantizer, or one float matrix");
    for (size_t i = 0; i < n; ++i) {
      check_bits(q.bits[i]);
      FusedOutput o{};
      o.bits = q.bits[i];
      if (q.row_factor[i]) o.row_factor = data<float>(*q.row_factor[i], "row_factor", {rows});
      // Pointers into empty tensors are null: what was given is asked, not what it points to.
      const bool mixed = q.widths[i].has_value(), placed = q.position[i].has_value();
      if (mixed) place_rows(&o, *q.widths[i], q.position[i], q.shift[i], rows, cols);
      o.axis = placed ? 0 : size(q.scale[i], 0, "scale") != 1 ? 1 : -1;
      const int64_t length = o.axis == 0 ? rows : o.axis == 1 ? cols : 1;
      o.scale = data<float>(q.scale[i], "scale", {length});
      if (mixed) {
        zero_points.emplace_back();
        o.zero_point = by_width(data<float>(q.zero_point[i], "zero_point", {8}), o.axis, cols,
                                &zero_points.back());
        o.packed = placed ? data<uint8_t>(out[i], "out", {o.bytes})
                          : data<uint8_t>(out[i], "out", {rows, cols});
      } else {
        o.zero_point = data<float>(q.zero_point[i], "zero_point", {length});
        o.packed = data<uint8_t>(out[i], "out", {rows, packed_row_bytes(cols, o.bits)});
        o.bytes = rows * packed_row_bytes(cols, o.bits);
      }
      outputs.push_back(o);
    }
    if (n == 0) args.floats = data<float>(out[0], "out", {rows, cols});
    check(post.scale.has_value() == post.shift.has_value(),
          "post_scale and post_shift come together");
    if (post.scale) {
      args.post_scale = data<float>(*post.scale, "post_scale", {cols});
      args.post_shift = data<float>(*post.shift, "post_shift", {cols});
    }
    args.relu = relu;
    args.outputs = outputs.data();
    args.num_outputs = static_cast<int>(n);
    args.num_cols = cols;
  }
};

void fused_spmm(const In& indptr, const In& indices, const In& packed, int bits, int64_t num_cols,
                const OptionalIn& weight, const OptionalIn& blocks, const OptionalIn& acc_scale,
                const OptionalIn& acc_offset, const In& col_scale, const OptionalIn& col_offset,
                const OptionalIn& row_offset, const OptionalIn& row_scale, const OptionalIn& bias,
                const OptionalIn& own, float own_factor, int64_t heads, bool relu, const Ins& scale,
                const Ins& zero_point, const std::vector<int>& out_bits,
                const OptionalIns& row_factor, const OptionalIns& widths,
                const OptionalIns& position, const OptionalIns& shift, const OptionalIn& post_scale,
                const OptionalIn& post_shift, const std::vector<Out>& out, int threads) {
  SpmmArgs a{};
  const int64_t s = spmm_args(indptr, indices, packed, bits, num_cols, weight, &a);
  const int64_t r = size(indptr, 0, "indptr") - 1;
  const EdgeBlocks view = blocks_of(blocks, r, s, a.num_edges);
  const std::vector<float> no_bias(bias ? 0 : static_cast<size_t>(num_cols), -0.0f);
  FusedTerm term{};
  term.epilogue = epilogue(col_scale, col_offset, row_offset, row_scale, bias, no_bias.data(), r,
                           num_cols, heads);
  if (acc_scale) term.acc_scale = data<int32_t>(*acc_scale, "acc_scale", {r});
  if (acc_offset) term.acc_offset = data<int32_t>(*acc_offset, "acc_offset", {r});
  const Quantizers q{scale, zero_point, out_bits, row_factor, widths, position, shift};
  Finish finish(relu, q, {post_scale, post_shift}, out, r, num_cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  if (own) finish.args.own = data<uint8_t>(*own, "own", {r, packed_row_bytes(num_cols, bits)});
  finish.args.own_bits = bits;
  finish.args.own_factor = own_factor;
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, a.num_edges);
  run_fused_spmm(a, view, r, s, finish.args, threads);
}

void fused_gemm(const Ins& x, const std::vector<int>& x_bits, const std::vector<int64_t>& depth,
                const Ins& w, const std::vector<int>& w_bits, const std::vector<bool>& midrise,
                const Ins& col_scale, const OptionalIns& col_offset, const OptionalIns& row_scale,
                const OptionalIns& bias, bool relu, const Ins& scale, const Ins& zero_point,
                const std::vector<int>& out_bits, const OptionalIns& row_factor,
                const OptionalIns& widths, const OptionalIns& position, const OptionalIns& shift,
                const OptionalIn& post_scale, const OptionalIn& post_shift,
                const std::vector<Out>& out, int threads) {
  const size_t n = x.size();
  check(n > 0 && x_bits.size() == n && depth.size() == n && w.size() == n && w_bits.size() == n &&
            midrise.size() == n && col_scale.size() == n && col_offset.size() == n &&
            row_scale.size() == n && bias.size() == n,
        "every argument of a product needs one entry per product");
  const int64_t rows = size(x[0], 0, "x_packed"), cols = size(w[0], 0, "w_packed");
  const std::vector<float> no_bias(static_cast<size_t>(cols), -0.0f);
  std::vector<FusedProduct> products;
  std::vector<FusedTerm> terms;
  for (size_t i = 0; i < n; ++i) {
    check_bits(x_bits[i]);
    check_weight_bits(w_bits[i], midrise[i]);
    check_cols(depth[i]);
    products.push_back(
        {GemmArgs{data<uint8_t>(x[i], "x_packed", {rows, packed_row_bytes(depth[i], x_bits[i])}),
                  nullptr, depth[i], cols, x_bits[i]},
         WeightArgs{data<uint8_t>(w[i], "w_packed", {cols, packed_row_bytes(depth[i], w_bits[i])}),
                    cols, depth[i], w_bits[i], midrise[i]}});
    terms.push_back({epilogue(col_scale[i], col_offset[i], std::nullopt, row_scale[i], bias[i],
                              no_bias.data(), rows, cols, 1),
                     nullptr, nullptr});
  }
  const Quantizers q{scale, zero_point, out_bits, row_factor, widths, position, shift};
  Finish finish(relu, q, {post_scale, post_shift}, out, rows, cols);
  finish.args.terms = terms.data();
  finish.args.num_terms = static_cast<int>(n);
  nb::gil_scoped_release release;
  run_fused_gemm(products, rows, finish.args, threads);
}

void fused_gemm_bucketed(const In& x, const In& order, const std::vector<int64_t>& counts,
                         int64_t num_cols, const In& w, int w_bits, bool midrise,
                         const In& col_scale, const OptionalIn& col_offset,
                         const OptionalIn& row_offset, const OptionalIn& row_scale,
                         const OptionalIn& bias, bool relu, const Ins& scale, const Ins& zero_point,
                         const std::vector<int>& out_bits, const OptionalIns& row_factor,
                         const OptionalIns& widths, const OptionalIns& position,
                         const OptionalIns& shift, const OptionalIn& post_scale,
                         const OptionalIn& post_shift, const std::vector<Out>& out, int threads) {
  check_weight_bits(w_bits, midrise);
  const Buckets buckets = buckets_of(order, counts, num_cols);
  const int64_t rows = buckets.rows, cols = size(w, 0, "w_packed");
  const std::vector<float> no_bias(bias ? 0 : static_cast<size_t>(cols), -0.0f);
  const FusedProduct product{
      GemmArgs{data<uint8_t>(x, "packed", {buckets.bytes()}), nullptr, num_cols, cols, 8},
      WeightArgs{data<uint8_t>(w, "w_packed", {cols, packed_row_bytes(num_cols, w_bits)}), cols,
                 num_cols, w_bits, midrise}};
  const FusedTerm term{
      epilogue(col_scale, col_offset, row_offset, row_scale, bias, no_bias.data(), rows, cols, 1),
      nullptr, nullptr};
  const Quantizers q{scale, zero_point, out_bits, row_factor, widths, position, shift};
  Finish finish(relu, q, {post_scale, post_shift}, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  run_fused_gemm_bucketed(product, buckets, finish.args, threads);
}

// Returns whether a value is negative, and whether all are finite.
std::tuple<bool, bool> fused_gemm_features(
    const In& x, int x_bits, bool symmetric, float min_scale, const Out& x_scale, const In& w,
    int w_bits, bool midrise, const In& col_scale, const OptionalIn& col_offset,
    const OptionalIn& bias, bool relu, const Ins& scale, const Ins& zero_point,
    const std::vector<int>& out_bits, const OptionalIns& row_factor, const OptionalIns& widths,
    const OptionalIns& position, const OptionalIns& shift, const OptionalIn& post_scale,
    const OptionalIn& post_shift, const std::vector<Out>& out, int threads) {
  check_bits(x_bits);
  check_weight_bits(w_bits, midrise);
  const int64_t rows = size(x, 0, "x"), depth = size(x, 1, "x"), cols = size(w, 0, "w_packed");
  ScanArgs scan{};
  scan.x = data<float>(x, "x", {rows, depth});
  scan.scale = data<float>(x_scale, "x_scale", {rows});
  scan.num_cols = depth;
  scan.min_scale = min_scale;
  scan.bits = x_bits;
  scan.symmetric = symmetric;
  const FusedProduct product{
      GemmArgs{nullptr, nullptr, depth, cols, x_bits},
      WeightArgs{data<uint8_t>(w, "w_packed", {cols, packed_row_bytes(depth, w_bits)}), cols, depth,
                 w_bits, midrise}};
  const std::vector<float> no_bias(bias ? 0 : static_cast<size_t>(cols), -0.0f);
  FusedTerm term{epilogue(col_scale, col_offset, std::nullopt, std::nullopt, bias, no_bias.data(),
                          rows, cols, 1),
                 nullptr, nullptr};
  term.epilogue.row_scale = scan.scale;
  const Quantizers q{scale, zero_point, out_bits, row_factor, widths, position, shift};
  Finish finish(relu, q, {post_scale, post_shift}, out, rows, cols);
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
