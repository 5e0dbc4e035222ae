// Products, sums, and what follows them, each as an operator of its own.
#include <vector>

#include "bindings/define.h"
#include "bindings/sums.h"
#include "run/drivers.h"
#include "run/propagate.h"

namespace nodebits {
namespace {

void gemm(const In& x, int x_bits, int64_t num_cols, const In& w, int w_bits, bool midrise,
          const Out& out, int threads) {
  check_bits(x_bits);
  check_weight_bits(w_bits, midrise);
  check_cols(num_cols);
  const int64_t n = size(x, 0, "x_packed"), m = size(w, 0, "w_packed");
  const WeightArgs weight{data<uint8_t>(w, "w_packed", {m, packed_row_bytes(num_cols, w_bits)}), m,
                          num_cols, w_bits, midrise};
  const GemmArgs a{data<uint8_t>(x, "x_packed", {n, packed_row_bytes(num_cols, x_bits)}), nullptr,
                   num_cols, m, x_bits};
  int32_t* to = data<int32_t>(out, "out", {n, m});
  nb::gil_scoped_release release;
  run_gemm(a, weight, to, n, threads);
}

void spmm(const In& indptr, const In& indices, const In& packed, int bits, int64_t num_cols,
          const OptionalIn& weight, const OptionalIn& blocks, const Out& out, int threads) {
  SpmmArgs a{};
  const int64_t s = spmm_args(indptr, indices, packed, bits, num_cols, weight, &a);
  const int64_t r = size(indptr, 0, "indptr") - 1, e = a.num_edges;
  int32_t* to = data<int32_t>(out, "out", {r, num_cols});
  const EdgeBlocks view = blocks_of(blocks, r, s, e);
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  if (e == 0) {
    for (int64_t i = 0; i < r * num_cols; ++i) to[i] = 0;
    return;
  }
  // Without edges, or columns, a weight array may be null; `heads` then still says which sum is
  // meant.
  run_spmm(a, to, r, s, threads, blocks ? &view : nullptr);
}

void rescale(const In& acc, const In& col_scale, const OptionalIn& col_offset,
             const OptionalIn& row_offset, const OptionalIn& row_scale, const OptionalIn& bias,
             int64_t heads, const Out& out, int threads) {
  const int64_t n = size(acc, 0, "acc"), c = size(acc, 1, "acc");
  check(heads > 0 && c % heads == 0, "the columns must be a multiple of the row factors' columns");
  RescaleArgs a{};
  a.acc = data<int32_t>(acc, "acc", {n, c});
  a.col_scale = data<float>(col_scale, "col_scale", {c});
  if (col_offset) a.col_offset = data<float>(*col_offset, "col_offset", {c});
  if (row_offset) a.row_offset = data<float>(*row_offset, "row_offset", {n, heads});
  if (row_scale) a.row_scale = data<float>(*row_scale, "row_scale", {n, heads});
  const std::vector<float> no_bias(bias ? 0 : static_cast<size_t>(c), -0.0f);
  a.bias = bias ? data<float>(*bias, "bias", {c}) : no_bias.data();
  a.out = data<float>(out, "out", {n, c});
  a.num_cols = c;
  a.heads = heads;
  nb::gil_scoped_release release;
  run_rescale(a, n, threads);
}

void edge_softmax(const In& indptr, const In& indices, const In& score_src, const In& score_dst,
                  float negative_slope, int bits, const Out& codes, const Out& row_sum,
                  int threads) {
  check_bits(bits);
  const int64_t r = size(indptr, 0, "indptr") - 1, e = size(indices, 0, "indices");
  const int64_t s = size(score_src, 0, "score_src"), h = size(score_src, 1, "score_src");
  check(r >= 0, "indptr must have at least one entry");
  check(e == 0 || s > 0, "edges lead to scores without rows");
  const SoftmaxArgs a{data<int64_t>(indptr, "indptr", {r + 1}),
                      data<int32_t>(indices, "indices", {e}),
                      data<float>(score_src, "score_src", {s, h}),
                      data<float>(score_dst, "score_dst", {r, h}),
                      data<uint8_t>(codes, "codes", {e, h}),
                      data<int32_t>(row_sum, "row_sum", {r, h}),
                      h,
                      negative_slope,
                      bits};
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  run_edge_softmax(a, r, threads);
}

// One row of scale, zero_point and made_with per neighbour sum, in the order of the sums.
void propagate(const In& indptr, const In& indices, const In& x, const OptionalIn& factor,
               const In& scale, const In& zero_point, const In& made_with,
               const std::vector<int>& bits, const std::vector<double>& coefficients,
               bool laplacian, double teleport, const OptionalIn& blocks, const Out& out,
               int threads) {
  const int64_t r = size(indptr, 0, "indptr") - 1, e = size(indices, 0, "indices");
  const int64_t c = size(x, 1, "x"), rounds = static_cast<int64_t>(bits.size());
  check(r >= 0, "indptr must have at least one entry");
  PropagateArgs a{};
  a.indptr = data<int64_t>(indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(indices, "indices", {e});
  a.x = data<float>(x, "x", {r, c});
  if (factor) a.factor = data<float>(*factor, "factor", {r});
  a.out = data<float>(out, "out", {r, c});
  a.num_edges = e;
  a.num_cols = c;
  const float* s = data<float>(scale, "scale", {rounds, c});
  const float* z = data<float>(zero_point, "zero_point", {rounds, c});
  const float* m = data<float>(made_with, "made_with", {rounds, c});
  for (int64_t i = 0; i < rounds; ++i) {
    check_bits(bits[static_cast<size_t>(i)]);
    a.rounds.push_back({s + i * c, z + i * c, m + i * c, bits[static_cast<size_t>(i)]});
  }
  int64_t sums = 0;
  for (double coefficient : coefficients) {
    a.coefficients.push_back(static_cast<float>(coefficient));
    sums += a.coefficients.back() != 0.0f ? 2 : 1;
  }
  check(sums == rounds && sums > 0, "bits must have one entry per neighbour sum");
  const EdgeBlocks view = blocks_of(blocks, r, r, e);
  a.blocks = blocks ? &view : nullptr;
  a.laplacian = laplacian;
  a.keep = static_cast<float>(1.0 - teleport);
  a.teleport = static_cast<float>(teleport);
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, e);
  run_propagate(a, r, threads);
}

}  // namespace

void define_products(nb::module_& m) {
  define(m, "gemm", &gemm);
  define(m, "spmm", &spmm);
  define(m, "rescale", &rescale);
  define(m, "edge_softmax", &edge_softmax);
  define(m, "propagate", &propagate);
}

}  // namespace nodebits
