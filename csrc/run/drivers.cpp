// Operators over whole tensors.
#include "run/drivers.h"

#include <algorithm>
#include <vector>

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/schedule.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

template <class T>
void fresh(T* out, int64_t elements) {
  prefer_huge_pages(out, static_cast<size_t>(elements) * sizeof(T));
}

}  // namespace

void run_pack(const PackArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  fresh(a.packed, rows * packed_row_bytes(a.num_cols, a.bits));
  split_rows(rows, a.num_cols / 8, threads, [&](int64_t b, int64_t e) { k.pack(a, b, e); });
}

void run_unpack(const UnpackArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  split_rows(rows, a.num_cols / 8, threads, [&](int64_t b, int64_t e) { k.unpack(a, b, e); });
}

void run_gather(const GatherArgs& a, int64_t count, int threads) {
  const Kernels& k = kernels();
  split_rows(count, a.num_cols / 2, threads, [&](int64_t b, int64_t e) { k.gather(a, b, e); });
}

void run_quantize(const QuantizeArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  if (a.codes != nullptr) fresh(a.codes, rows * a.num_cols);
  if (a.packed != nullptr) fresh(a.packed, rows * packed_row_bytes(a.num_cols, a.bits));
  split_rows(rows, a.num_cols, threads, [&](int64_t b, int64_t e) { k.quantize(a, b, e); });
}

void run_quantize_backward(const QuantizeBackwardArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  const int64_t width = a.axis == 1 ? a.num_cols : 1;
  fresh(a.grad_x, rows * a.num_cols);
  // The blocks are the same for any thread count, and so is the order in which their sums are
  // added.
  const int64_t rows_per_block = std::max<int64_t>(1, (rows + 63) / 64);
  const int64_t blocks = (rows + rows_per_block - 1) / rows_per_block;
  std::vector<double> sums(a.axis == 0 ? 0 : static_cast<size_t>(2 * blocks * width), 0.0);
  const int used = rows * a.num_cols < kTaskWork ? 1 : threads;
  parallel_for(blocks, used, [&](int64_t b) {
    double* scale_sum = a.axis == 0 ? nullptr : sums.data() + 2 * b * width;
    double* zero_point_sum = a.axis == 0 ? nullptr : scale_sum + width;
    k.quantize_backward(a, b * rows_per_block, std::min(rows, (b + 1) * rows_per_block), scale_sum,
                        zero_point_sum);
  });
  if (a.axis == 0) return;
  for (int64_t j = 0; j < width; ++j) {
    double s = 0.0, z = 0.0;
    for (int64_t b = 0; b < blocks; ++b) {
      s += sums[static_cast<size_t>(2 * b * width + j)];
      z += sums[static_cast<size_t>((2 * b + 1) * width + j)];
    }
    a.grad_scale[j] = static_cast<float>(s);
    a.grad_zero_point[j] = static_cast<float>(z);
  }
}

void run_gemm(const GemmArgs& a, const WeightArgs& w, int32_t* out, int64_t rows, int threads) {
  if (rows == 0 || a.num_out == 0) return;
  fresh(out, rows * a.num_out);
  const DenseProduct product(a, w, rows, threads);
  product.parallel(0, [&](Tile t) {
    t.out = out + t.row_begin * a.num_out;
    t.stride = a.num_out;
    product.tile(t);
  });
}

void run_spmm(const SpmmArgs& a, int32_t* out, int64_t rows, int64_t table_rows, int threads,
              const EdgeBlocks* blocks) {
  fresh(out, rows * a.num_cols);
  const NeighborSum sum(a, rows, table_rows, threads, blocks);
  sum.parallel(0, 0, [&](Tile t) {
    t.out = out + t.row_begin * a.num_cols + t.col_begin;
    t.stride = a.num_cols;
    sum.tile(t);
  });
}

void run_rescale(const RescaleArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  fresh(a.out, rows * a.num_cols);
  split_rows(rows, a.num_cols, threads, [&](int64_t b, int64_t e) { k.rescale(a, b, e); });
}

void run_edge_softmax(const SoftmaxArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  split_edges(a.indptr, rows, 8 * a.heads, threads,
              [&](int64_t b, int64_t e) { k.edge_softmax(a, b, e); });
}

}  // namespace nodebits
