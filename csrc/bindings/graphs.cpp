// Graphs: compressed rows, edges regrouped into blocks, and whether one is what it was.
#include <tuple>

#include "bindings/define.h"
#include "run/digest.h"
#include "run/edge_blocks.h"

namespace nodebits {
namespace {

// Rows of a group and of a block of sources that suit the machine; (0, 0) where blocks do not pay.
std::tuple<int64_t, int64_t> edge_blocks_plan(int64_t rows, int64_t sources, int64_t edges,
                                              int64_t row_bytes) {
  const EdgeBlocks plan = plan_edge_blocks(rows, sources, edges, row_bytes);
  return plan.block_rows > 0 ? std::make_tuple(plan.group_rows, plan.block_rows)
                             : std::make_tuple(int64_t{0}, int64_t{0});
}

void check_block_sizes(int64_t group_rows, int64_t block_rows) {
  check(group_rows > 0 && group_rows <= kMostGroupRows && block_rows > 0 && block_rows <= 1 << 16,
        "group_rows must be positive and block_rows 1 to 65536");
}

int64_t edge_blocks_size(int64_t rows, int64_t sources, int64_t edges, int64_t group_rows,
                         int64_t block_rows) {
  check(rows >= 0 && sources >= 0 && edges >= 0, "sizes of a graph must not be negative");
  check_block_sizes(group_rows, block_rows);
  EdgeBlocks plan;
  plan.rows = rows, plan.sources = sources, plan.edges = edges;
  plan.group_rows = group_rows, plan.block_rows = block_rows;
  return static_cast<int64_t>(edge_blocks_bytes(plan));
}

void fill_edge_blocks(const In& indptr, const In& indices, int64_t sources, int64_t group_rows,
                      int64_t block_rows, const Out& blocks, int threads) {
  const int64_t r = size(indptr, 0, "indptr") - 1, e = size(indices, 0, "indices");
  check(r >= 0, "indptr must have at least one entry");
  check_block_sizes(group_rows, block_rows);
  EdgeBlocks plan;
  plan.rows = r, plan.sources = sources, plan.edges = e;
  plan.group_rows = group_rows, plan.block_rows = block_rows;
  const int64_t* ptr = data<int64_t>(indptr, "indptr", {r + 1});
  const int32_t* idx = data<int32_t>(indices, "indices", {e});
  uint8_t* memory =
      data<uint8_t>(blocks, "blocks", {static_cast<int64_t>(edge_blocks_bytes(plan))});
  nb::gil_scoped_release release;
  check_indptr(ptr, r, e);
  check(first_outside(idx, e, sources, threads) < 0, "indices must be below the sources");
  make_edge_blocks(plan, ptr, idx, memory, threads);
}

// -1, or the position of the first value that is not in [0, limit).
int64_t first_outside_of(const In& values, const char* name, int64_t limit, int threads) {
  const int64_t n = size(values, 0, name);
  if (values.dtype() == nb::dtype<int32_t>()) {
    const int32_t* p = data<int32_t>(values, name, {n});
    nb::gil_scoped_release release;
    return first_outside(p, n, limit, threads);
  }
  const int64_t* p = data<int64_t>(values, name, {n});
  nb::gil_scoped_release release;
  return first_outside(p, n, limit, threads);
}

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
  check(first_outside(r, e, num_rows, threads) < 0, "row must be below num_rows");
  check(first_outside(c, e, INT32_MAX, threads) < 0, "col must be below 2^31 - 1");
  coo_to_csr(r, c, e, num_rows, ptr, idx, p, threads);
}

uint64_t digest_of(const In& bytes, int threads) {
  const int64_t n = size(bytes, 0, "bytes");
  const uint8_t* p = data<uint8_t>(bytes, "bytes", {n});
  nb::gil_scoped_release release;
  return digest(p, n, threads);
}

}  // namespace

void define_graphs(nb::module_& m) {
  define(m, "edge_blocks_plan", &edge_blocks_plan);
  define(m, "edge_blocks_size", &edge_blocks_size);
  define(m, "fill_edge_blocks", &fill_edge_blocks);
  define(m, "digest", &digest_of);
  define(m, "first_outside", &first_outside_of);
  define(m, "coo_to_csr", &coo_to_csr_checked);
}

}  // namespace nodebits
