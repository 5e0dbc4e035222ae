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
  std::vector<float> room;
  RescaleArgs a = epilogue_args(epilogue, n, c, &room);
  a.acc = data<int32_t>(acc, "acc", {n, c});
  a.out = data<float>(out, "out", {n, c});
  nb::gil_scoped_release release;
  run_rescale(a, n, threads);
}

void rescale_floats(const In& acc, const EpilogueIn& epilogue, const Out& out, int threads) {
  const int64_t n = size(acc, 0, "acc"), c = size(acc, 1, "acc");
  std::vector<float> room;
  RescaleFloatsArgs a{};
  a.epilogue = epilogue_args(epilogue, n, c, &room);
  a.acc = data<float>(acc, "acc", {n, c});
  a.out = data<float>(out, "out", {n, c});
  nb::gil_scoped_release release;
  run_rescale_floats(a, n, threads);
}

void rescale_backward(const In& grad, const In& acc, const EpilogueIn& epilogue,
                      const Out& grad_acc, const Out& grad_scale, const Out& grad_offset,
                      const Out& grad_bias, int threads) {
  const int64_t n = size(acc, 0, "acc"), c = size(acc, 1, "acc");
  std::vector<float> room;
  RescaleFloatsArgs a{};
  a.epilogue = epilogue_args(epilogue, n, c, &room);
  a.grad = data<float>(grad, "grad", {n, c});
  a.acc = data<float>(acc, "acc", {n, c});
  a.out = data<float>(grad_acc, "grad_acc", {n, c});
  float* const columns[3] = {data<float>(grad_scale, "grad_scale", {c}),
                             data<float>(grad_offset, "grad_offset", {c}),
                             data<float>(grad_bias, "grad_bias", {c})};
  nb::gil_scoped_release release;
  run_rescale_backward(a, n, columns, threads);
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

void propagate(const EdgesIn& edges, const In& x, const OptionalIn& factor, const RoundsIn& rounds,
               const StepsIn& steps, const Out& out, int threads) {
  PropagateArgs a = propagate_args(edges, x, factor, rounds, steps, out);
  const int64_t r = edges.rows();
  const EdgeBlocks view = blocks_of(edges, r);
  a.blocks = edges.blocks ? &view : nullptr;
  nb::gil_scoped_release release;
  check_indptr(a.indptr, r, a.num_edges);
  run_propagate(a, r, threads);
}

}  // namespace

void define_products(nb::module_& m) {
  define(m, "gemm", &gemm);
  define(m, "spmm", &spmm);
  define(m, "rescale", &rescale);
  define(m, "rescale_floats", &rescale_floats);
  define(m, "rescale_backward", &rescale_backward);
  define(m, "edge_softmax", &edge_softmax);
  define(m, "propagate", &propagate);
}

}  // namespace nodebits
