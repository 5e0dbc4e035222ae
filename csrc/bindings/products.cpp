// Products, sums, and what follows them, each as an operator of its own.
#include <vector>

#include "bindings/define.h"
#include "bindings/sums.h"
#include "run/drivers.h"
#include "run/propagate.h"

namespace nodebits {
namespace {

void gemm(const SourceIn& x, const WeightIn& w, const Out& out, int threads) {
  const uint8_t* packed = x.checked();
  const int64_t n = x.rows(), m = w.rows();
  const WeightArgs weight = w.args(x.num_cols);
  const GemmArgs a{packed, nullptr, x.num_cols, m, x.bits, x.coding};
  int32_t* to = data<int32_t>(out, "out", {n, m});
  nb::gil_scoped_release release;
  run_gemm(a, weight, to, n, threads);
}

void spmm(const EdgesIn& edges, const SourceIn& source, const Out& out, int threads) {
  const SpmmArgs a = spmm_args(edges, source);
  const int64_t r = edges.rows(), s = source.rows();
  int32_t* to = data<int32_t>(out, "out", {r, a.num_cols});
  const EdgeBlocks view = blocks_of(edges, s);
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, a.num_edges);
  if (a.num_edges == 0) {
    for (int64_t i = 0; i < r * a.num_cols; ++i) to[i] = 0;
    return;
  }
  // Without edges, or columns, a weight array may be null; `heads` then still says which sum is
  // meant.
  run_spmm(a, to, r, s, threads, edges.blocks ? &view : nullptr);
}

void rescale(const In& acc, const EpilogueIn& epilogue, const Out& out, int threads) {
  const int64_t n = size(acc, 0, "acc"), c = size(acc, 1, "acc");
  const std::vector<float> none = no_bias(epilogue, c);
  RescaleArgs a = epilogue_args(epilogue, none, n, c);
  a.acc = data<int32_t>(acc, "acc", {n, c});
  a.out = data<float>(out, "out", {n, c});
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
void propagate(const EdgesIn& edges, const In& x, const OptionalIn& factor, const RoundsIn& rounds,
               const StepsIn& steps, const Out& out, int threads) {
  const int64_t r = edges.rows(), e = edges.count();
  const int64_t c = size(x, 1, "x"), n = static_cast<int64_t>(rounds.bits.size());
  check(!edges.weight, "the steps take no edge weights");
  PropagateArgs a{};
  a.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {e});
  a.x = data<float>(x, "x", {r, c});
  if (factor) a.factor = data<float>(*factor, "factor", {r});
  a.out = data<float>(out, "out", {r, c});
  a.num_edges = e;
  a.num_cols = c;
  const float* s = data<float>(rounds.scale, "scale", {n, c});
  const float* z = data<float>(rounds.zero_point, "zero_point", {n, c});
  const float* m = data<float>(rounds.made_with, "made_with", {n, c});
  for (int64_t i = 0; i < n; ++i) {
    const int bits = rounds.bits[static_cast<size_t>(i)];
    check_bits(bits);
    a.rounds.push_back({s + i * c, z + i * c, m + i * c, bits});
  }
  int64_t sums = 0;
  for (double coefficient : steps.coefficients) {
    a.coefficients.push_back(static_cast<float>(coefficient));
    sums += a.coefficients.back() != 0.0f ? 2 : 1;
  }
  check(sums == n && sums > 0, "bits must have one entry per neighbour sum");
  const EdgeBlocks view = blocks_of(edges, r);
  a.blocks = edges.blocks ? &view : nullptr;
  a.laplacian = steps.laplacian;
  a.keep = static_cast<float>(1.0 - steps.teleport);
  a.teleport = static_cast<float>(steps.teleport);
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
