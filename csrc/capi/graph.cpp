// Graphs that are used more than once: rows of them, and what a forward keeps with them.
#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"
#include "run/csr.h"

namespace nodebits {
namespace {

constexpr int64_t kMostNodes = 2147483647;  // indices are int32

template <class T>
Array fresh(DType dtype, std::initializer_list<int64_t> shape, T** data) {
  Array made;
  made.dtype = dtype;
  for (const int64_t n : shape) made.shape[made.ndim++] = n;
  const auto memory =
      std::shared_ptr<T[]>(new T[static_cast<size_t>(std::max<int64_t>(1, made.count()))]);
  *data = memory.get();
  made.data = memory.get();
  made.owner = std::shared_ptr<void>(memory, memory.get());
  return made;
}

void check_nodes(int64_t n, const char* which) {
  if (n < 0 || n > kMostNodes) {
    throw PlanError("GraphError", std::string(which) + " is " + std::to_string(n) +
                                      "; 0 to 2147483647 nodes are possible");
  }
}

// Rows of an edge index by the step that a plan has for it: the same order, the same errors.
void make_rows(const Array& edge_index, int64_t sources, int64_t targets, Graph& graph) {
  const std::string text =
      R"({"version":1,"inputs":[{"name":"edge_index","value":0,"dtype":"int64","shape":[2,null]}],)"
      R"("constants":{},"steps":[{"op":"csr","args":["v0",)" +
      std::to_string(sources) + "," + std::to_string(targets) +
      R"(],"outs":[1,2,3]}],"outputs":[{"value":1},{"value":2},{"value":3}]})";
  Run run(Plan::read(text, [](std::string_view) { return Array{}; }));
  run.set(0, edge_index);
  run.steps(0, 1, 1);
  graph.indptr = run.get(1);
  graph.indices = run.get(2);
  graph.perm = run.get(3);
}

Array copy_of_indptr(const Array& given, int64_t edges) {
  int64_t* indptr;
  const Array made = fresh(DType::i64, {given.shape[0]}, &indptr);
  std::memcpy(indptr, given.data, static_cast<size_t>(given.count()) * 8);
  const int64_t rows = given.shape[0] - 1;
  const int64_t descent = first_descent(indptr, rows);
  if (indptr[0] != 0 || indptr[rows] != edges || descent >= 0) {
    throw PlanError("GraphError",
                    "indptr begins with " + std::to_string(indptr[0]) + " and ends with " +
                        std::to_string(indptr[rows]) +
                        (descent < 0 ? "" : ", falls after row " + std::to_string(descent)) +
                        "; it must rise from 0 to the number of edges, " + std::to_string(edges));
  }
  return made;
}

Array copy_of_indices(const Array& wide, int64_t sources) {
  const auto* from = static_cast<const int64_t*>(wide.data);
  const int64_t n = wide.count();
  const int64_t bad = first_outside(from, n, sources, 1);
  if (bad >= 0) {
    throw PlanError("NodeIndexError", "indices[" + std::to_string(bad) + "] is " +
                                          std::to_string(from[bad]) + "; the graph has " +
                                          std::to_string(sources) + " source nodes");
  }
  int32_t* indices;
  const Array made = fresh(DType::i32, {n}, &indices);
  std::transform(from, from + n, indices, [](int64_t i) { return static_cast<int32_t>(i); });
  return made;
}

Array integers(const nb_array* array, const char* name, int ndim) {
  const Array given = widened(checked(array, name));
  if (given.dtype != DType::i64 || given.ndim != ndim) {
    throw PlanError("ShapeError", std::string(name) + " is " + name_of(given.dtype) + " of " +
                                      std::to_string(given.ndim) + " axes; int64 or int32 of " +
                                      std::to_string(ndim) + " is expected");
  }
  return given;
}

}  // namespace

Array Graph::edges() const {
  std::call_once(edges_made_, [this] {
    const int64_t n = indices.count();
    int64_t* at;
    const Array made = fresh(DType::i64, {2, n}, &at);
    const auto* rows = static_cast<const int64_t*>(indptr.data);
    const auto* columns = static_cast<const int32_t*>(indices.data);
    const auto* place = static_cast<const int64_t*>(perm.data);
    for (int64_t row = 0; row + 1 < indptr.shape[0]; ++row) {
      for (int64_t e = rows[row]; e < rows[row + 1]; ++e) {
        at[place[e]] = columns[e];
        at[n + place[e]] = row;
      }
    }
    edges_ = made;
  });
  return edges_;
}

Array checked(const nb_array* array, const char* name) {
  need(array, name);
  const std::string called = name;
  if (array->dtype < NB_FLOAT32 || array->dtype > NB_BOOL) {
    throw PlanError("ShapeError",
                    called + " has the unknown dtype " + std::to_string(array->dtype));
  }
  if (array->ndim < 0 || array->ndim > NB_MOST_AXES) {
    throw PlanError("ShapeError", called + " has " + std::to_string(array->ndim) + " axes; 0 to " +
                                      std::to_string(NB_MOST_AXES) + " are possible");
  }
  Array made;
  made.dtype = static_cast<DType>(array->dtype);
  made.ndim = array->ndim;
  made.data = array->data;
  unsigned __int128 bytes = static_cast<unsigned __int128>(bytes_of(made.dtype));
  for (int i = 0; i < made.ndim; ++i) {
    made.shape[i] = array->shape[i];
    const bool possible = made.shape[i] >= 0 && made.shape[i] <= int64_t{1} << 48;
    if (possible) bytes *= static_cast<unsigned __int128>(made.shape[i]);
    if (!possible || bytes >> 62 != 0) {
      throw PlanError("ShapeError", called + " has size " + std::to_string(made.shape[i]) +
                                        " along axis " + std::to_string(i));
    }
  }
  if (bytes > 0) need(made.data, name);
  return made;
}

Array widened(const Array& array) {
  if (array.dtype != DType::i32) return array;
  int64_t* data;
  Array made = fresh(DType::i64, {array.count()}, &data);
  made.ndim = array.ndim;
  std::copy(array.shape, array.shape + array.ndim, made.shape);
  const auto* from = static_cast<const int32_t*>(array.data);
  std::copy(from, from + array.count(), data);
  return made;
}

}  // namespace nodebits

using namespace nodebits;

extern "C" {

nb_status nb_graph_coo(const nb_array* edge_index, int64_t num_sources, int64_t num_targets,
                       nb_graph** graph) {
  return guarded([&] {
    need(graph, "graph");
    *graph = nullptr;
    check_nodes(num_sources, "num_sources");
    check_nodes(num_targets, "num_targets");
    const auto made = std::make_shared<Graph>();
    made->sources = num_sources;
    make_rows(integers(edge_index, "edge_index", 2), num_sources, num_targets, *made);
    *graph = new nb_graph{made};
  });
}

nb_status nb_graph_csr(const nb_array* indptr, const nb_array* indices, int64_t num_sources,
                       nb_graph** graph) {
  return guarded([&] {
    need(graph, "graph");
    *graph = nullptr;
    check_nodes(num_sources, "num_sources");
    const Array rows = integers(indptr, "indptr", 1), columns = integers(indices, "indices", 1);
    if (rows.shape[0] < 1)
      throw PlanError("GraphError", "indptr is empty; it has one entry more than rows");
    check_nodes(rows.shape[0] - 1, "the number of targets");
    const auto made = std::make_shared<Graph>();
    made->sources = num_sources;
    made->indptr = copy_of_indptr(rows, columns.count());
    made->indices = copy_of_indices(columns, num_sources);
    int64_t* order;
    made->perm = fresh(DType::i64, {columns.count()}, &order);
    for (int64_t e = 0; e < columns.count(); ++e) order[e] = e;
    *graph = new nb_graph{made};
  });
}

void nb_graph_free(nb_graph* graph) { delete graph; }

}  // extern "C"
