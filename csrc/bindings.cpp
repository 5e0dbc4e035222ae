// Python bindings: outputs are allocated by the caller and passed in. Every array's dtype, shape
// and contiguity is checked here (ValueError), then the GIL is released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bucketed.h"
#include "csr.h"
#include "drivers.h"
#include "edge_blocks.h"
#include "fused.h"
#include "isa.h"
#include "memory.h"
#include "pool.h"
#include "propagate.h"
#include "sparse.h"

namespace nb = nanobind;
using namespace nodebits;

namespace {

using In = nb::ndarray<nb::ro, nb::device::cpu>;
using Out = nb::ndarray<nb::device::cpu>;
using OptionalIn = std::optional<In>;

template <class A>
std::string shape_of(const A& array) {
  std::string s = "[";
  for (size_t i = 0; i < array.ndim(); ++i)
    s += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  return s + "]";
}

// The array's data as T, if its shape is `shape` and it is contiguous.
template <class T, class A>
auto data(const A& array, const char* name, std::initializer_list<int64_t> shape) {
  bool fits = array.ndim() == shape.size();
  std::string expected = "[";
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    const int64_t n = shape.begin()[i];
    if (fits)
      fits = static_cast<int64_t>(array.shape(i)) == n && (n <= 1 || array.stride(i) == stride);
    stride *= n;
  }
  if (stride == 0 && array.ndim() == shape.size()) {  // strides of an empty array mean nothing
    fits = true;
    for (size_t i = 0; i < shape.size(); ++i)
      fits &= static_cast<int64_t>(array.shape(i)) == shape.begin()[i];
  }
  if (!fits || array.dtype() != nb::dtype<T>()) {
    for (int64_t n : shape) expected += (expected.size() > 1 ? ", " : "") + std::to_string(n);
    const std::string message = std::string(name) + " has shape " + shape_of(array) +
                                "; expected a contiguous " + expected +
                                "] array of the documented dtype";
    throw nb::value_error(message.c_str());
  }
  if constexpr (std::is_same_v<A, In>) {
    return static_cast<const T*>(array.data());
  } else {
    return static_cast<T*>(array.data());
  }
}

template <class A>
int64_t size(const A& array, size_t axis, const char* name) {
  if (array.ndim() <= axis) {
    const std::string message =
        std::string(name) + " has shape " + shape_of(array) + ", too few dimensions";
    throw nb::value_error(message.c_str());
  }
  return static_cast<int64_t>(array.shape(axis));
}

void check(bool good, const char* message) {
  if (!good) throw nb::value_error(message);
}

void check_bits(int bits) { check(bits >= 1 && bits <= 8, "bits must be 1 to 8"); }

int64_t scale_length(int axis, int64_t rows, int64_t cols) {
  check(axis >= -1 && axis <= 1, "axis must be -1, 0 or 1");
  return axis < 0 ? 1 : (axis == 0 ? rows : cols);
}

void check_indptr(const int64_t* indptr, int64_t rows, int64_t edges) {
  check(indptr[0] == 0, "indptr[0] must be 0");
  check(indptr[rows] == edges, "indptr[-1] must be the number of edges");
  check(first_descent(indptr, rows) < 0, "indptr must not decrease");
}

void pack(const In& codes, int bits, const Out& packed, int threads) {
  check_bits(bits);
  const int64_t n = size(codes, 0, "codes"), c = size(codes, 1, "codes");
  const PackArgs a{data<uint8_t>(codes, "codes", {n, c}),
                   data<uint8_t>(packed, "packed", {n, packed_row_bytes(c, bits)}), c, bits};
  nb::gil_scoped_release release;
  run_pack(a, n, threads);
}

void unpack(const In& packed, int bits, const Out& codes, int threads) {
  check_bits(bits);
  const int64_t n = size(codes, 0, "codes"), c = size(codes, 1, "codes");
  const UnpackArgs a{data<uint8_t>(packed, "packed", {n, packed_row_bytes(c, bits)}),
                     data<uint8_t>(codes, "codes", {n, c}), c, bits};
  nb::gil_scoped_release release;
  run_unpack(a, n, threads);
}

QuantizeArgs quantize_args(const In& x, const In& scale, const In& zero_point, int axis, int bits) {
  check_bits(bits);
  const int64_t n = size(x, 0, "x"), c = size(x, 1, "x");
  const int64_t length = scale_length(axis, n, c);
  QuantizeArgs a{};
  a.x = data<float>(x, "x", {n, c});
  a.scale = data<float>(scale, "scale", {length});
  a.zero_point = data<float>(zero_point, "zero_point", {length});
  a.num_cols = c;
  a.axis = axis;
  a.bits = bits;
  return a;
}

void quantize_pack(const In& x, const In& scale, const In& zero_point, int axis, int bits,
                   const OptionalIn& row_factor, const Out& packed, int threads) {
  QuantizeArgs a = quantize_args(x, scale, zero_point, axis, bits);
  const int64_t n = size(x, 0, "x");
  if (row_factor) a.row_factor = data<float>(*row_factor, "row_factor", {n});
  a.packed = data<uint8_t>(packed, "packed", {n, packed_row_bytes(a.num_cols, bits)});
  nb::gil_scoped_release release;
  run_quantize(a, n, threads);
}

void fake_quantize(const In& x, const In& scale, const In& zero_point, int axis, int bits,
                   const Out& codes, int threads) {
  QuantizeArgs a = quantize_args(x, scale, zero_point, axis, bits);
  const int64_t n = size(x, 0, "x");
  a.codes = data<float>(codes, "codes", {n, a.num_cols});
  if (n * a.num_cols == 0) return;
  nb::gil_scoped_release release;
  run_quantize(a, n, threads);
}

void fake_quantize_backward(const In& grad, const In& x, const In& scale, const In& zero_point,
                            int axis, int bits, int mode, const Out& grad_x, const Out& grad_scale,
                            const Out& grad_zero_point, int threads) {
  const QuantizeArgs q = quantize_args(x, scale, zero_point, axis, bits);
  check(mode >= 0 && mode <= 2, "mode must be 0 (clip), 1 (pass) or 2 (strict)");
  const int64_t n = size(x, 0, "x"), c = q.num_cols;
  const int64_t length = scale_length(axis, n, c);
  const QuantizeBackwardArgs a{data<float>(grad, "grad", {n, c}),
                               q.x,
                               q.scale,
                               q.zero_point,
                               data<float>(grad_x, "grad_x", {n, c}),
                               data<float>(grad_scale, "grad_scale", {length}),
                               data<float>(grad_zero_point, "grad_zero_point", {length}),
                               c,
                               axis,
                               bits,
                               static_cast<Gradient>(mode)};
  nb::gil_scoped_release release;
  run_quantize_backward(a, n, threads);
}

void gemm(const In& x, int x_bits, int64_t num_cols, const In& w, int w_bits, bool midrise,
          const Out& out, int threads) {
  check_bits(x_bits);
  check_bits(w_bits);
  check(!midrise || w_bits <= 7, "midrise weights have at most 7 bits");
  check(num_cols >= 0, "num_cols must not be negative");
  const int64_t n = size(x, 0, "x_packed"), m = size(w, 0, "w_packed");
  const WeightArgs weight{data<uint8_t>(w, "w_packed", {m, packed_row_bytes(num_cols, w_bits)}), m,
                          num_cols, w_bits, midrise};
  const GemmArgs a{data<uint8_t>(x, "x_packed", {n, packed_row_bytes(num_cols, x_bits)}), nullptr,
                   num_cols, m, x_bits};
  int32_t* to = data<int32_t>(out, "out", {n, m});
  nb::gil_scoped_release release;
  run_gemm(a, weight, to, n, threads);
}

// `order` must be a permutation: the caller made it by sorting.
Buckets buckets_of(const In& order, const std::vector<int64_t>& counts, int64_t num_cols) {
  check(counts.size() == 8, "counts needs one entry per width 1 to 8");
  check(num_cols >= 0, "num_cols must not be negative");
  int64_t rows = 0;
  for (int64_t n : counts) {
    check(n >= 0, "counts must not be negative");
    rows += n;
  }
  const Buckets b{data<int32_t>(order, "order", {rows}), counts.data(), rows, num_cols};
  check(first_outside(b.order, rows, rows, 1) < 0, "order must be a permutation of the rows");
  return b;
}

void unpack_bucketed(const In& packed, const In& order, const std::vector<int64_t>& counts,
                     const OptionalIn& shift, const Out& codes, int threads) {
  const int64_t n = size(codes, 0, "codes"), c = size(codes, 1, "codes");
  const Buckets buckets = buckets_of(order, counts, c);
  check(buckets.rows == n, "counts must add up to the rows of codes");
  const uint8_t* from = data<uint8_t>(packed, "packed", {buckets.bytes()});
  const uint8_t* by = shift ? data<uint8_t>(*shift, "shift", {n}) : nullptr;
  uint8_t* to = data<uint8_t>(codes, "codes", {n, c});
  nb::gil_scoped_release release;
  run_unpack_bucketed(from, by, to, buckets, threads);
}

void nearest_group(const In& extent, const In& limits, const Out& group, int threads) {
  const int64_t n = size(extent, 0, "extent"), m = size(limits, 0, "limits");
  check(m > 0, "limits must hold at least one group");
  const float* f = data<float>(extent, "extent", {n});
  const float* q = data<float>(limits, "limits", {m});
  int32_t* to = data<int32_t>(group, "group", {n});
  nb::gil_scoped_release release;
  run_nearest_group(f, n, q, m, to, threads);
}

// Sets everything but the output; returns the rows of the table.
int64_t spmm_args(const In& indptr, const In& indices, const In& packed, int bits, int64_t num_cols,
                  const OptionalIn& weight, SpmmArgs* args) {
  check_bits(bits);
  check(num_cols >= 0, "num_cols must not be negative");
  SpmmArgs& a = *args;
  const int64_t r = size(indptr, 0, "indptr") - 1, e = size(indices, 0, "indices"),
                s = size(packed, 0, "packed");
  check(r >= 0, "indptr must have at least one entry");
  a.indptr = data<int64_t>(indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(indices, "indices", {e});
  a.packed = data<uint8_t>(packed, "packed", {s, packed_row_bytes(num_cols, bits)});
  a.heads = 1;
  if (weight) {
    a.heads = size(*weight, 1, "weight");
    check(a.heads > 0 && num_cols % a.heads == 0,
          "num_cols must be a multiple of the weight's columns");
    a.weight = data<uint8_t>(*weight, "weight", {e, a.heads});
  }
  a.num_edges = e;
  a.num_cols = num_cols;
  a.bits = bits;
  check(e == 0 || s > 0, "edges lead to a table without rows");
  return s;
}

// What edge_blocks made for this graph, or nothing.
EdgeBlocks blocks_of(const OptionalIn& blocks, int64_t rows, int64_t sources, int64_t edges) {
  EdgeBlocks view;
  if (blocks) {
    const int64_t bytes = size(*blocks, 0, "blocks");
    const uint8_t* memory = data<uint8_t>(*blocks, "blocks", {bytes});
    check(reinterpret_cast<uintptr_t>(memory) % 8 == 0, "blocks must start at a multiple of 8");
    check(view_edge_blocks(memory, static_cast<size_t>(bytes), rows, sources, edges, &view),
          "blocks were made for a graph of other sizes");
  }
  return view;
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

// Rows of a group and of a block of sources that suit the machine; (0, 0) where blocks do not pay.
std::tuple<int64_t, int64_t> edge_blocks_plan(int64_t rows, int64_t sources, int64_t edges,
                                              int64_t row_bytes) {
  const EdgeBlocks plan = plan_edge_blocks(rows, sources, edges, row_bytes);
  return plan.block_rows > 0 ? std::make_tuple(plan.group_rows, plan.block_rows)
                             : std::make_tuple(int64_t{0}, int64_t{0});
}

int64_t edge_blocks_size(int64_t rows, int64_t sources, int64_t edges, int64_t group_rows,
                         int64_t block_rows) {
  EdgeBlocks plan;
  plan.rows = rows, plan.sources = sources, plan.edges = edges;
  plan.group_rows = group_rows, plan.block_rows = block_rows;
  return static_cast<int64_t>(edge_blocks_bytes(plan));
}

// The indices must have passed first_outside.
void fill_edge_blocks(const In& indptr, const In& indices, int64_t sources, int64_t group_rows,
                      int64_t block_rows, const Out& blocks, int threads) {
  const int64_t r = size(indptr, 0, "indptr") - 1, e = size(indices, 0, "indices");
  check(r >= 0, "indptr must have at least one entry");
  check(group_rows > 0 && block_rows > 0 && block_rows <= 1 << 16,
        "group_rows must be positive and block_rows 1 to 65536");
  EdgeBlocks plan;
  plan.rows = r, plan.sources = sources, plan.edges = e;
  plan.group_rows = group_rows, plan.block_rows = block_rows;
  const int64_t* ptr = data<int64_t>(indptr, "indptr", {r + 1});
  const int32_t* idx = data<int32_t>(indices, "indices", {e});
  uint8_t* memory =
      data<uint8_t>(blocks, "blocks", {static_cast<int64_t>(edge_blocks_bytes(plan))});
  nb::gil_scoped_release release;
  check_indptr(ptr, r, e);
  make_edge_blocks(plan, ptr, idx, memory, threads);
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

// (number of codes or -1, whether a value is negative, whether a row has two different codes)
std::tuple<int64_t, bool, bool, bool> scan(const In& x, int bits, float min_scale,
                                           const Out& extent, const Out& counts, const Out& first,
                                           const Out& sums, const Out& indices, const Out& codes,
                                           const std::optional<Out>& packed, const Out& scale,
                                           bool symmetric, int threads) {
  check_bits(bits);
  const int64_t n = size(x, 0, "x"), c = size(x, 1, "x"), room = size(indices, 0, "indices");
  const ScanArgs a{
      data<float>(x, "x", {n, c}),
      data<float>(extent, "extent", {n}),
      data<int64_t>(counts, "counts", {n}),
      data<int32_t>(first, "first", {n}),
      data<int32_t>(sums, "sums", {n}),
      packed ? data<uint8_t>(*packed, "packed", {n, packed_row_bytes(c, bits)}) : nullptr,
      packed ? data<float>(scale, "scale", {n}) : nullptr,
      c,
      min_scale,
      bits,
      symmetric};
  int32_t* to = data<int32_t>(indices, "indices", {room});
  uint8_t* code = data<uint8_t>(codes, "codes", {room});
  nb::gil_scoped_release release;
  const SparseFound found = run_scan(a, n, to, code, room, threads);
  return {found.count, found.flags.negative, found.flags.mixed, found.flags.finite};
}

// -1, or the position of the first value that is not in [0, limit).
int64_t first_outside_of(const In& values, int64_t limit, int threads) {
  const int64_t n = size(values, 0, "values");
  if (values.dtype() == nb::dtype<int32_t>()) {
    const int32_t* p = data<int32_t>(values, "values", {n});
    nb::gil_scoped_release release;
    return first_outside(p, n, limit, threads);
  }
  const int64_t* p = data<int64_t>(values, "values", {n});
  nb::gil_scoped_release release;
  return first_outside(p, n, limit, threads);
}

// The indices must have passed first_outside.
void coo_to_csr_checked(const In& row, const In& col, int64_t num_rows, const Out& indptr,
                        const Out& indices, const Out& perm, int threads) {
  const int64_t e = size(row, 0, "row");
  check(num_rows >= 0, "num_rows must not be negative");
  const int64_t* r = data<int64_t>(row, "row", {e});
  const int64_t* c = data<int64_t>(col, "col", {e});
  int64_t* ptr = data<int64_t>(indptr, "indptr", {num_rows + 1});
  int32_t* idx = data<int32_t>(indices, "indices", {e});
  int64_t* p = data<int64_t>(perm, "perm", {e});
  nb::gil_scoped_release release;
  coo_to_csr(r, c, e, num_rows, ptr, idx, p, threads);
}

using Ins = std::vector<In>;
using OptionalIns = std::vector<OptionalIn>;

// The bias of an epilogue without one: all -0, which leaves every float as it is.
RescaleArgs epilogue(const In& col_scale, const OptionalIn& col_offset,
                     const OptionalIn& row_offset, const OptionalIn& row_scale,
                     const OptionalIn& bias, const float* no_bias, int64_t rows, int64_t cols,
                     int64_t heads) {
  check(heads > 0 && cols % heads == 0,
        "the columns must be a multiple of the row factors' columns");
  RescaleArgs a{};
  a.col_scale = data<float>(col_scale, "col_scale", {cols});
  if (col_offset) a.col_offset = data<float>(*col_offset, "col_offset", {cols});
  if (row_offset) a.row_offset = data<float>(*row_offset, "row_offset", {rows, heads});
  if (row_scale) a.row_scale = data<float>(*row_scale, "row_scale", {rows, heads});
  a.bias = bias ? data<float>(*bias, "bias", {cols}) : no_bias;
  a.num_cols = cols;
  a.heads = heads;
  return a;
}

// Rows of every width 1 to 8; loops without branches, since every forward checks them.
void count_widths(const uint8_t* widths, int64_t rows, int64_t counts[9]) {
  int64_t total = 0;
  for (int b = 1; b <= 8; ++b) {
    int64_t n = 0;
    for (int64_t i = 0; i < rows; ++i) n += widths[i] == b;
    counts[b] = n;
    total += n;
  }
  check(total == rows, "widths must be 1 to 8");
}

// Bytes on pages of their own, see map_pages; None where there are none.
std::optional<nb::ndarray<uint8_t, nb::ndim<1>, nb::device::cpu>> fresh_bytes(int64_t bytes) {
  check(bytes > 0, "bytes must be positive");
  struct Pages {
    void* memory;
    size_t bytes;
  };
  void* memory = map_pages(static_cast<size_t>(bytes));
  if (memory == nullptr) return std::nullopt;
  const nb::capsule owner(new Pages{memory, static_cast<size_t>(bytes)}, [](void* p) noexcept {
    const auto* pages = static_cast<Pages*>(p);
    unmap_pages(pages->memory, pages->bytes);
    delete pages;
  });
  return nb::ndarray<uint8_t, nb::ndim<1>, nb::device::cpu>(memory, {static_cast<size_t>(bytes)},
                                                            owner);
}

// Where the codes of rows of several widths go: see FusedOutput.
void place_rows(FusedOutput* o, const In& widths, const OptionalIn& position,
                const OptionalIn& shift, int64_t rows, int64_t cols) {
  o->widths = data<uint8_t>(widths, "widths", {rows});
  int64_t counts[9] = {};
  count_widths(o->widths, rows, counts);
  check(position.has_value() != shift.has_value(),
        "rows of several widths need a position in their bucket, or a shift");
  bool outside = false;
  if (shift) {
    o->shift = data<uint8_t>(*shift, "shift", {rows});
    for (int64_t i = 0; i < rows; ++i) outside |= o->shift[i] > 7 || o->shift[i] + o->widths[i] > 8;
    check(!outside, "width + shift must be at most 8");
    o->bytes = rows * cols;
    return;
  }
  o->position = data<int32_t>(*position, "position", {rows});
  for (int64_t i = 0; i < rows; ++i)
    outside |= o->position[i] < 0 || o->position[i] >= counts[o->widths[i]];
  check(!outside, "position must be below the number of rows of that width");
  for (int b = 1; b <= 8; ++b) {
    o->bucket_begin[b] = o->bytes;
    o->bytes += counts[b] * packed_row_bytes(cols, b);
  }
}

// A zero point for every width becomes a row for every width where the scale is a column's.
const float* by_width(const float* zero_point, int axis, int64_t cols, std::vector<float>* room) {
  if (axis != 1) return zero_point;
  for (int b = 0; b < 8; ++b) room->insert(room->end(), static_cast<size_t>(cols), zero_point[b]);
  return room->data();
}

// Bytes of the buckets of these widths.
int64_t bucket_bytes(const In& widths, int64_t cols) {
  const int64_t n = size(widths, 0, "widths");
  int64_t counts[9] = {}, total = 0;
  count_widths(data<uint8_t>(widths, "widths", {n}), n, counts);
  for (int b = 1; b <= 8; ++b) total += counts[b] * packed_row_bytes(cols, b);
  return total;
}

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

// How a fused operator goes on: quantizers and the matrices they fill, or one float matrix.
struct Finish {
  std::vector<FusedOutput> outputs;
  std::vector<std::vector<float>> zero_points;  // see by_width
  FusedArgs args{};

  Finish(bool relu, const Quantizers& q, const std::vector<Out>& out, int64_t rows, int64_t cols) {
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
    args.relu = relu;
    args.outputs = outputs.data();
    args.num_outputs = static_cast<int>(n);
    args.num_cols = cols;
  }
};

// Returns whether all values are finite, if it was told to look.
bool quantize_pack_bucketed(const In& x, const In& scale, const In& zero_point, int axis,
                            const In& widths, const In& position, const OptionalIn& row_factor,
                            bool look, const Out& packed, int threads) {
  const int64_t n = size(x, 0, "x"), c = size(x, 1, "x");
  FusedOutput o{};
  const float* from = data<float>(x, "x", {n, c});
  place_rows(&o, widths, position, std::nullopt, n, c);
  o.axis = axis;
  o.bits = 8;
  o.scale = data<float>(scale, "scale", {scale_length(axis, n, c)});
  std::vector<float> spread;
  o.zero_point = by_width(data<float>(zero_point, "zero_point", {8}), axis, c, &spread);
  if (row_factor) o.row_factor = data<float>(*row_factor, "row_factor", {n});
  o.packed = data<uint8_t>(packed, "packed", {o.bytes});
  nb::gil_scoped_release release;
  return run_quantize_mixed(o, from, n, c, look, threads);
}

void fused_spmm(const In& indptr, const In& indices, const In& packed, int bits, int64_t num_cols,
                const OptionalIn& weight, const OptionalIn& blocks, const OptionalIn& acc_scale,
                const OptionalIn& acc_offset, const In& col_scale, const OptionalIn& col_offset,
                const OptionalIn& row_offset, const OptionalIn& row_scale, const OptionalIn& bias,
                const OptionalIn& own, float own_factor, int64_t heads, bool relu, const Ins& scale,
                const Ins& zero_point, const std::vector<int>& out_bits,
                const OptionalIns& row_factor, const OptionalIns& widths,
                const OptionalIns& position, const OptionalIns& shift, const std::vector<Out>& out,
                int threads) {
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
  Finish finish(relu, q, out, r, num_cols);
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
    check_bits(w_bits[i]);
    check(depth[i] >= 0, "num_cols must not be negative");
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
  Finish finish(relu, q, out, rows, cols);
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
                         const OptionalIns& shift, const std::vector<Out>& out, int threads) {
  check_bits(w_bits);
  check(!midrise || w_bits <= 7, "midrise weights have at most 7 bits");
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
  Finish finish(relu, q, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  run_fused_gemm_bucketed(product, buckets, finish.args, threads);
}

// Returns whether a value is negative, and whether all are finite.
std::tuple<bool, bool> fused_gemm_features(const In& x, int x_bits, bool symmetric, float min_scale,
                                           const Out& x_scale, const In& w, int w_bits,
                                           bool midrise, const In& col_scale,
                                           const OptionalIn& col_offset, const OptionalIn& bias,
                                           bool relu, const Ins& scale, const Ins& zero_point,
                                           const std::vector<int>& out_bits,
                                           const OptionalIns& row_factor, const OptionalIns& widths,
                                           const OptionalIns& position, const OptionalIns& shift,
                                           const std::vector<Out>& out, int threads) {
  check_bits(x_bits);
  check_bits(w_bits);
  check(!midrise || w_bits <= 7, "midrise weights have at most 7 bits");
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
  Finish finish(relu, q, out, rows, cols);
  finish.args.terms = &term;
  finish.args.num_terms = 1;
  nb::gil_scoped_release release;
  const ScanFlags found = run_fused_gemm_features(product, scan, rows, finish.args, threads);
  return {found.negative, found.finite};
}

// A call with its arguments, which it keeps alive. Its checks are made anew whenever it runs.
using Step = std::function<void()>;

// f, but what it would do becomes a step.
template <class... A>
auto bound(void (*f)(A...)) {
  return [f](std::decay_t<A>... arguments) -> Step {
    return [f, ... kept = std::move(arguments)] { f(kept...); };
  };
}

// Steps one after the other, without Python between them.
struct Program {
  std::vector<Step> steps;

  void run() const {
    const KeepAwake awake;
    for (const Step& step : steps) step();
  }
};

// Defines f as `name`, and as `bind_name` what makes a step of it.
template <class F, class... Extra>
void define(nb::module_& m, const std::string& name, F f, const Extra&... extra) {
  m.def(name.c_str(), f, extra...);
  m.def(("bind_" + name).c_str(), bound(f), extra...);
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() = "Compiled operators. Use them through nodebits.ops, which allocates and checks.";
  m.def("isa_levels", [] {
    std::vector<std::tuple<std::string, bool, std::string>> out;
    for (const IsaLevel& l : isa_levels()) out.emplace_back(l.name, l.available, l.reason);
    return out;
  });
  m.def("isa", [] { return std::string(current_isa()); });
  m.def("set_isa", [](const std::string& name) { return set_isa(name); });
  define(m, "pack", &pack);
  define(m, "unpack", &unpack);
  define(m, "quantize_pack", &quantize_pack, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
         nb::arg().none(), nb::arg(), nb::arg());
  m.def("fake_quantize", &fake_quantize);
  m.def("fake_quantize_backward", &fake_quantize_backward);
  define(m, "gemm", &gemm);
  m.def("quantize_pack_bucketed", &quantize_pack_bucketed, nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
  define(m, "unpack_bucketed", &unpack_bucketed, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
         nb::arg(), nb::arg());
  m.def("bucket_bytes", &bucket_bytes);
  m.def("fresh_bytes", &fresh_bytes);
  m.def("nearest_group", &nearest_group);
  define(m, "spmm", &spmm, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
         nb::arg().none(), nb::arg(), nb::arg());
  m.def("edge_blocks_plan", &edge_blocks_plan);
  m.def("edge_blocks_size", &edge_blocks_size);
  m.def("fill_edge_blocks", &fill_edge_blocks);
  define(m, "rescale", &rescale, nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
         nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
  define(m, "edge_softmax", &edge_softmax);
  define(m, "propagate", &propagate, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
         nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
         nb::arg(), nb::arg());
  define(m, "fused_spmm", &fused_spmm, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
         nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(),
         nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
         nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
         nb::arg(), nb::arg(), nb::arg(), nb::arg());
  define(m, "fused_gemm", &fused_gemm);
  define(m, "fused_gemm_bucketed", &fused_gemm_bucketed, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
         nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
         nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
         nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("fused_gemm_features", &fused_gemm_features, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
        nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg());
  m.def("scan", &scan, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
  nb::class_<Step>(m, "Step");
  nb::class_<Program>(m, "Program")
      .def("__init__",
           [](Program* p, const std::vector<Step*>& steps) {
             new (p) Program;
             for (const Step* step : steps) p->steps.push_back(*step);
           })
      .def("run", &Program::run);
  m.def("first_outside", &first_outside_of);
  m.def("coo_to_csr", &coo_to_csr_checked);
}
