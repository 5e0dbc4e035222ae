// Splitting of work. Boundaries depend on the shapes and the thread count only through how many
// tasks there are; every output element is computed by one task alone, so the split never shows in
// a result.
#include "drivers.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "isa.h"
#include "memory.h"
#include "pool.h"

namespace nodebits {
namespace {

constexpr int64_t kTaskWork =
    1 << 15;  // elementary steps below which a task is not worth a wake-up
constexpr int64_t kTasksPerThread = 8;  // slack for uneven tasks

int64_t task_count(int64_t work, int64_t rows, int threads) {
  if (threads <= 1) return 1;
  return std::max<int64_t>(1, std::min({work / kTaskWork, kTasksPerThread * threads, rows}));
}

// Calls f(begin, end) for equal row ranges.
template <class F>
void split_rows(int64_t rows, int64_t work_per_row, int threads, const F& f) {
  if (rows == 0) return;
  const int64_t tasks = task_count(rows * std::max<int64_t>(1, work_per_row), rows, threads);
  parallel_for(tasks, threads, [&](int64_t t) {
    const int64_t begin = rows / tasks * t + std::min(t, rows % tasks);
    f(begin, begin + rows / tasks + (t < rows % tasks ? 1 : 0));
  });
}

// Calls f(begin, end) for row ranges of about equal numbers of edges (an empty row counts as one).
template <class F>
void split_edges(const int64_t* indptr, int64_t rows, int64_t work_per_edge, int threads,
                 const F& f) {
  if (rows == 0) return;
  const int64_t total = indptr[rows] + rows;
  const int64_t tasks = task_count(total * std::max<int64_t>(1, work_per_edge), rows, threads);
  const auto boundary = [&](int64_t t) {
    const int64_t target = static_cast<int64_t>(static_cast<__int128>(total) * t / tasks);
    int64_t low = 0, high = rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (indptr[middle] + middle < target) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  parallel_for(tasks, threads, [&](int64_t t) {
    const int64_t begin = boundary(t);
    const int64_t end = t + 1 == tasks ? rows : boundary(t + 1);
    if (begin < end) f(begin, end);
  });
}

struct Buffer {
  explicit Buffer(size_t bytes)
      : memory(static_cast<uint8_t*>(
            ::operator new(std::max<size_t>(bytes, 1), std::align_val_t{64}))) {}
  ~Buffer() { ::operator delete(memory, std::align_val_t{64}); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  uint8_t* memory;
};

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

void run_gemm(GemmArgs a, const WeightArgs& w, int64_t rows, int threads) {
  if (rows == 0 || a.num_out == 0) return;
  if (a.depth == 0) {
    std::fill(a.out, a.out + rows * a.num_out, 0);
    return;
  }
  const Kernels& k = kernels();
  fresh(a.out, rows * a.num_out);
  const Buffer panel(k.panel_bytes(w));
  k.make_panel(w, panel.memory);
  a.panel = panel.memory;
  split_rows(rows, a.depth * ((a.num_out + 15) / 16), threads,
             [&](int64_t b, int64_t e) { k.gemm(a, b, e); });
}

void run_spmm(SpmmArgs a, int64_t rows, int64_t table_rows, int threads) {
  const Kernels& k = kernels();
  int wide_bits = a.bits == 3 ? 4 : (a.bits > 4 ? 8 : a.bits);
  if (a.weight != nullptr) wide_bits = std::max(wide_bits, k.weighted_bits);
  const bool widen = wide_bits != a.bits;
  fresh(a.out, rows * a.num_cols);
  const Buffer wide(
      widen ? static_cast<size_t>(table_rows * packed_row_bytes(a.num_cols, wide_bits)) : 0);
  if (widen) {
    fresh(wide.memory, table_rows * packed_row_bytes(a.num_cols, wide_bits));
    const WidenArgs w{a.packed, wide.memory, a.num_cols, a.bits, wide_bits};
    split_rows(table_rows, a.num_cols / 4, threads,
               [&](int64_t b, int64_t e) { k.widen(w, b, e); });
    a.packed = wide.memory;
    a.bits = wide_bits;
  }
  a.table_bytes = table_rows * packed_row_bytes(a.num_cols, a.bits);
  if (a.num_cols == 0) return;
  const auto kernel = a.weight != nullptr ? k.spmm_weighted : k.spmm;
  const int64_t per_edge = a.num_cols * a.bits / (a.weight != nullptr ? 16 : 64);
  split_edges(a.indptr, rows, per_edge, threads, [&](int64_t b, int64_t e) { kernel(a, b, e); });
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
