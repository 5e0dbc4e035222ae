// Samples of a graph, and the rows that belong to them.
#include <utility>

#include "bindings/define.h"
#include "bindings/given.h"
#include "run/sample.h"
#include "run/take.h"

namespace nodebits {
namespace {

// Every number is in [0, limit), which a check in Python words better.
void check_index(const int64_t* index, int64_t n, int64_t limit, int threads) {
  check(first_outside(index, n, limit, threads) < 0, "index must be in the range of the rows");
}

auto sample(const In& indptr, const In& indices, const In& seeds,
            const std::vector<int64_t>& fanouts, uint64_t seed, bool replace, int threads) {
  Sampled from{};
  const int64_t rows = size(indptr, 0, "indptr") - 1;
  check(rows >= 0 && rows <= INT32_MAX, "indptr must have 1 to 2^31 entries");
  from.indptr = data<int64_t>(indptr, "indptr", {rows + 1});
  from.indices = data<int32_t>(indices, "indices", {size(indices, 0, "indices")});
  from.num_nodes = rows;
  from.num_seeds = size(seeds, 0, "seeds");
  from.seeds = data<int64_t>(seeds, "seeds", {from.num_seeds});
  from.fanouts = fanouts.data();
  from.hops = static_cast<int64_t>(fanouts.size());
  for (const int64_t fanout : fanouts)
    check(fanout >= -1 && fanout <= INT32_MAX, "fanouts must be -1 to 2^31 - 1");
  from.seed = seed;
  from.replace = replace;
  Neighborhood made;
  {
    nb::gil_scoped_release release;
    check_index(from.seeds, from.num_seeds, rows, threads);
    made = sample_neighbors(from, threads);
  }
  return std::make_tuple(given(std::move(made.nodes)), given(std::move(made.indptr)),
                         given(std::move(made.indices)), given(std::move(made.edges)),
                         given(std::move(made.seeds)), std::move(made.reached));
}

// The rows of a contiguous array of any type, as bytes.
template <class A>
struct Bytes {
  Bytes(const A& array, const char* name) : rows(size(array, 0, name)) {
    int64_t stride = 1;
    bool fits = true;
    for (size_t i = array.ndim(); i-- > 0;) {
      const auto n = static_cast<int64_t>(array.shape(i));
      fits &= n <= 1 || array.stride(i) == stride;
      stride *= n;
      if (i > 0) row *= n;
    }
    if (!fits && stride != 0)
      throw ShapeError(std::string(name) + " has shape " + shape_of(array) +
                       "; expected a contiguous array");
    row *= static_cast<int64_t>(array.itemsize());
    if constexpr (std::is_same_v<A, In>)
      memory = static_cast<const uint8_t*>(array.data());
    else
      memory = static_cast<uint8_t*>(array.data());
  }
  int64_t rows, row = 1;
  std::conditional_t<std::is_same_v<A, In>, const uint8_t*, uint8_t*> memory = nullptr;
};

void take(const In& table, const In& index, const Out& out, int threads) {
  const Bytes<In> from(table, "table");
  const Bytes<Out> to(out, "out");
  const int64_t n = size(index, 0, "index");
  const int64_t* at = data<int64_t>(index, "index", {n});
  check(to.rows == n && to.row == from.row, "out must have the rows of index and their bytes");
  nb::gil_scoped_release release;
  check_index(at, n, from.rows, threads);
  take_rows(from.memory, from.row, at, n, to.memory, threads);
}

// Where the taken rows begin, then their entries.
void take_csr_indptr(const In& indptr, const In& index, const Out& out, int threads) {
  const int64_t rows = size(indptr, 0, "indptr") - 1, n = size(index, 0, "index");
  check(rows >= 0, "indptr must have at least one entry");
  const int64_t* ptr = data<int64_t>(indptr, "indptr", {rows + 1});
  const int64_t* at = data<int64_t>(index, "index", {n});
  int64_t* to = data<int64_t>(out, "out", {n + 1});
  nb::gil_scoped_release release;
  check_index(at, n, rows, threads);
  take_indptr(ptr, at, n, to);
}

void take_csr_entries(const In& table, const In& indptr, const In& index, const In& out_indptr,
                      const Out& out, int threads) {
  const int64_t rows = size(indptr, 0, "indptr") - 1, n = size(index, 0, "index");
  const Bytes<In> from(table, "table");
  const Bytes<Out> to(out, "out");
  check(rows >= 0, "indptr must have at least one entry");
  const int64_t* ptr = data<int64_t>(indptr, "indptr", {rows + 1});
  const int64_t* at = data<int64_t>(index, "index", {n});
  const int64_t* out_ptr = data<int64_t>(out_indptr, "out_indptr", {n + 1});
  check(to.row == from.row, "out must have entries like those of table");
  nb::gil_scoped_release release;
  check_index(at, n, rows, threads);
  check_indptr(out_ptr, n, to.rows);
  bool fits = true;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t begin = ptr[at[i]], end = ptr[at[i] + 1];
    fits &= begin >= 0 && begin <= end && end <= from.rows &&
            end - begin == out_ptr[i + 1] - out_ptr[i];
  }
  check(fits, "out_indptr must be the lengths of the rows at index");
  take_lists(from.memory, from.row, ptr, at, n, out_ptr, to.memory, threads);
}

}  // namespace

void define_sampling(nb::module_& m) {
  define(m, "sample_neighbors", &sample);
  define(m, "take_rows", &take);
  define(m, "take_indptr", &take_csr_indptr);
  define(m, "take_lists", &take_csr_entries);
}

}  // namespace nodebits
