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

// run(begin, end, sums of its own) over blocks of rows, and the blocks' sums in `sums`. Blocks are
// the same for any number of threads, and so is the order in which their sums are added.
template <class Run>
void sum_in_blocks(int64_t rows, int64_t work_per_row, int threads, std::vector<double>* sums,
                   const Run& run) {
  const int64_t rows_per_block = std::max<int64_t>(1, (rows + 63) / 64);
  const int64_t blocks = (rows + rows_per_block - 1) / rows_per_block;
  const size_t width = sums->size();
  std::vector<double> parts(static_cast<size_t>(blocks) * width);
  parallel_for(blocks, rows * work_per_row < kTaskWork ? 1 : threads, [&](int64_t b) {
    run(b * rows_per_block, std::min(rows, (b + 1) * rows_per_block),
        parts.data() + static_cast<size_t>(b) * width);
  });
  std::fill(sums->begin(), sums->end(), 0.0);
  for (size_t at = 0; at < parts.size(); at += width) {
    for (size_t j = 0; j < width; ++j) (*sums)[j] += parts[at + j];
  }
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
  std::vector<double> sums(a.axis == 0 ? 0 : static_cast<size_t>(2 * width));
  sum_in_blocks(rows, a.num_cols, threads, &sums, [&](int64_t begin, int64_t end, double* block) {
    k.quantize_backward(a, begin, end, block, block + width);
  });
  if (a.axis == 0) return;
  std::copy_n(sums.data(), width, a.grad_scale);
  std::copy_n(sums.data() + width, width, a.grad_zero_point);
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

void run_rescale_floats(const RescaleFloatsArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  const int64_t cols = a.epilogue.num_cols;
  fresh(a.out, rows * cols);
  split_rows(rows, cols, threads, [&](int64_t b, int64_t e) { k.rescale_floats(a, b, e); });
}

void run_rescale_backward(const RescaleFloatsArgs& a, int64_t rows, float* const columns[3],
                          int threads) {
  const Kernels& k = kernels();
  const int64_t cols = a.epilogue.num_cols;
  fresh(a.out, rows * cols);
  std::vector<double> sums(static_cast<size_t>(3 * cols));
  sum_in_blocks(rows, cols, threads, &sums, [&](int64_t begin, int64_t end, double* block) {
    k.rescale_backward(a, begin, end, block);
  });
  for (int part = 0; part < 3; ++part) std::copy_n(sums.data() + part * cols, cols, columns[part]);
}

void run_edge_softmax(const SoftmaxArgs& a, int64_t rows, int threads) {
  const Kernels& k = kernels();
  split_edges(a.indptr, rows, 8 * a.heads, threads,
              [&](int64_t b, int64_t e) { k.edge_softmax(a, b, e); });
}

}  // namespace nodebits
