// The structure of graphs (nodebits/graph/csr.py, loops.py, adjacency.py).
#include <cmath>

#include "plan/compressed.h"
#include "plan/program.h"
#include "run/csr.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

// Models of several types of edges have an input for each: which one it is stands in its name.
std::string called(const Frame& f, In edge_index) {
  const int input = f.program.input_of[static_cast<size_t>(edge_index.value)];
  return input < 0 ? "edge_index" : f.program.inputs[static_cast<size_t>(input)].name;
}

void check_ends(const Frame& f, In edge_index, const int64_t* values, int64_t edges, int64_t nodes,
                int row, const char* what) {
  const int64_t at = first_outside(values, edges, nodes, f.threads);
  if (at < 0) return;
  throw PlanError("NodeIndexError", called(f, edge_index) + "[" + std::to_string(row) + ", " +
                                        std::to_string(at) + "] is " + std::to_string(values[at]) +
                                        ": " + what + " indices must be in [0, " +
                                        std::to_string(nodes - 1) + "] for " +
                                        std::to_string(nodes) + " nodes");
}

StepPtr csr(Reader& r) {
  const In edge_index = r.value();
  const Int num_src = r.integer(), num_dst = r.integer();
  const int indptr = r.out(), indices = r.out(), perm = r.out();
  return step([=](Frame& f) {
    const Value& edges = f.expect(edge_index, "edge_index", DType::i64, 2);
    if (edges.shape[0] != 2)
      throw PlanError("GraphError",
                      "edge_index has shape " + shape_text(edges) + ": expected [2, num_edges]");
    const int64_t count = edges.shape[1], sources = f.at(num_src), rows = f.at(num_dst);
    if (sources >= INT32_MAX || rows >= INT32_MAX || count > int64_t{1} << 40)
      throw PlanError("GraphError", "the graph has " + std::to_string(std::max(sources, rows)) +
                                        " nodes and " + std::to_string(count) +
                                        " edges: node indices are int32, below 2147483647; cut "
                                        "the graph, or sample neighbours");
    const int64_t *from = edges.as<int64_t>(), *to = from + count;
    check_ends(f, edge_index, from, count, sources, 0, "source");
    check_ends(f, edge_index, to, count, rows, 1, "target");
    Value& ptr = f.make(indptr, DType::i64, {rows + 1});
    Value& idx = f.make(indices, DType::i32, {count});
    // The order of edges has a meaning where they carry something; else it stays empty.
    const bool ordered = f.wanted(perm);
    Value& p = f.make(perm, DType::i64, {ordered ? count : 0});
    coo_to_csr(to, from, count, rows, ptr.as<int64_t>(), idx.as<int32_t>(),
               ordered ? p.as<int64_t>() : nullptr, f.threads);
    ptr.ends = count;
    idx.below = sources;
    p.below = count;
  });
}

void check_loops(int64_t count, int64_t rows) {
  if (count < 0 || count > rows)
    throw PlanError("NodeIndexError", "self loops for " + std::to_string(count) +
                                          " nodes of a graph with " + std::to_string(rows) +
                                          " targets");
}

// What becomes of loops that are there, by what the graph was made from (Graph.with_self_loops).
enum class Form { edge_index, matrix, sparse_tensor };

Form read_form(Reader& r) {
  if (r.at_end()) return Form::edge_index;
  const std::string name = r.text();
  if (name == "torch.sparse") return Form::matrix;
  if (name == "SparseTensor") return Form::sparse_tensor;
  r.fail("no graph has the form \"" + name + "\"");
}

// Edges of every row, with its loops or without them, and one loop at the end of the first `count`
// rows: calls edge(to, e) for edge e that goes to place `to`, loop(to, row) for a new one. Returns
// the edges.
template <class Edge, class Loop>
int64_t with_loops(const Csr& g, bool keep, int64_t count, int64_t* indptr, const Edge& edge,
                   const Loop& loop) {
  int64_t at = 0;
  for (int64_t row = 0; row < g.rows; ++row) {
    indptr[row] = at;
    for (int64_t e = g.indptr[row]; e < g.indptr[row + 1]; ++e) {
      if (g.indices[e] == row && !keep) continue;
      edge(at++, e);
    }
    if (row < count) loop(at++, row);
  }
  indptr[g.rows] = at;
  return at;
}

int64_t kept_edges(const Csr& g) {
  int64_t loops = 0;
  for (int64_t row = 0; row < g.rows; ++row) {
    for (int64_t e = g.indptr[row]; e < g.indptr[row + 1]; ++e) loops += g.indices[e] == row;
  }
  return g.edges - loops;
}

StepPtr self_loops(Reader& r) {
  const In indptr = r.value(), indices = r.value();
  r.optional();  // perm: the order of edges has no meaning without weights
  const Int count = r.integer();
  const bool keep = read_form(r) == Form::matrix;
  const int out_ptr = r.out(), out_idx = r.out();
  return step([=](Frame& f) {
    const Csr g = checked_csr(f, indptr, indices);
    const int64_t n = f.at(count);
    check_loops(n, g.rows);
    const int64_t below = f[indices].below;
    const int64_t edges = (keep ? g.edges : kept_edges(g)) + n;
    Value& ptr = f.make(out_ptr, DType::i64, {g.rows + 1});
    Value& idx = f.make(out_idx, DType::i32, {edges});
    int32_t* to = idx.as<int32_t>();
    with_loops(
        g, keep, n, ptr.as<int64_t>(), [&](int64_t at, int64_t e) { to[at] = g.indices[e]; },
        [&](int64_t at, int64_t row) { to[at] = static_cast<int32_t>(row); });
    ptr.ends = edges;
    idx.below = below < 0 ? -1 : std::max(below, n);
  });
}

// Loops of an edge_index, and for every edge its number as it was given, behind which are those of
// the loops.
StepPtr self_loops_placed(Reader& r) {
  const In indptr = r.value(), indices = r.value(), perm = r.optional();
  const Int count = r.integer();
  const int out_ptr = r.out(), out_idx = r.out(), out_places = r.out();
  return step([=](Frame& f) {
    const Csr g = checked_csr(f, indptr, indices);
    const int64_t n = f.at(count);
    check_loops(n, g.rows);
    const int64_t below = f[indices].below;
    const int64_t* given = nullptr;
    if (perm) {
      const Value& order = f.expect(perm, "perm", DType::i64, 1);
      if (order.shape[0] != g.edges)
        throw PlanError("GraphError", "perm of a graph has " + std::to_string(order.shape[0]) +
                                          " values for " + std::to_string(g.edges) + " edges");
      given = order.as<int64_t>();
    }
    const int64_t edges = kept_edges(g) + n;
    Value& ptr = f.make(out_ptr, DType::i64, {g.rows + 1});
    Value& idx = f.make(out_idx, DType::i32, {edges});
    Value& places = f.make(out_places, DType::i64, {edges});
    int32_t* to = idx.as<int32_t>();
    int64_t* place = places.as<int64_t>();
    with_loops(
        g, false, n, ptr.as<int64_t>(),
        [&](int64_t at, int64_t e) {
          to[at] = g.indices[e];
          place[at] = given == nullptr ? e : given[e];
        },
        [&](int64_t at, int64_t row) {
          to[at] = static_cast<int32_t>(row);
          place[at] = g.edges + row;
        });
    ptr.ends = edges;
    idx.below = below < 0 ? -1 : std::max(below, n);
    places.below = g.edges + n;
  });
}

StepPtr self_loops_weighted(Reader& r) {
  const In indptr = r.value(), indices = r.value(), weight = r.optional();
  const Int count = r.integer();
  const Number fill = r.number();
  const Form form = read_form(r);
  const int out_ptr = r.out(), out_idx = r.out(), out_weight = r.out();
  return step([=](Frame& f) {
    const Csr g = checked_csr(f, indptr, indices);
    const int64_t n = f.at(count);
    check_loops(n, g.rows);
    const int64_t below = f[indices].below;
    const float* old = weight ? data<float>(f.ref(weight), "weight", {g.edges}) : nullptr;
    const int64_t edges = kept_edges(g) + n;
    Value& ptr = f.make(out_ptr, DType::i64, {g.rows + 1});
    Value& idx = f.make(out_idx, DType::i32, {edges});
    Value& made = f.make(out_weight, DType::f32, {edges});
    int32_t* to = idx.as<int32_t>();
    float* w = made.as<float>();
    const float fresh = static_cast<float>(f.at(fill));
    const auto old_weight = [&](int64_t e) { return old == nullptr ? 1.0f : old[e]; };
    with_loops(
        g, false, n, ptr.as<int64_t>(),
        [&](int64_t at, int64_t e) {
          to[at] = g.indices[e];
          w[at] = old_weight(e);
        },
        [&](int64_t at, int64_t row) {
          to[at] = static_cast<int32_t>(row);
          w[at] = fresh;
          if (form == Form::sparse_tensor) return;
          // Loops that were there: the last of an edge_index gives its weight, those of a matrix
          // are added.
          for (int64_t e = g.indptr[row]; e < g.indptr[row + 1]; ++e) {
            if (g.indices[e] != row) continue;
            w[at] = form == Form::matrix ? w[at] + old_weight(e) : old_weight(e);
          }
        });
    ptr.ends = edges;
    idx.below = below < 0 ? -1 : std::max(below, n);
  });
}

// Calls f(row, degree) for every row.
template <class F>
void each_degree(Frame& frame, In indptr, const F& f) {
  const Value& v = frame.expect(indptr, "indptr", DType::i64, 1);
  if (v.shape[0] < 1) throw ShapeError("indptr must have at least one entry");
  const int64_t* p = v.as<int64_t>();
  for (int64_t row = 0; row + 1 < v.shape[0]; ++row) f(row, p[row + 1] - p[row]);
}

StepPtr degree(Reader& r) {
  const In indptr = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(indptr, "indptr", DType::i64, 1).shape[0] - 1;
    float* to = f.make(out, DType::f32, {std::max<int64_t>(rows, 0)}).as<float>();
    each_degree(f, indptr, [&](int64_t row, int64_t d) { to[row] = static_cast<float>(d); });
  });
}

// Sums of weights by source, in double: of weights of one size these are exact in any order.
void add_weights(Frame& f, In weight, const int32_t* from, int64_t edges, int64_t sources,
                 float* to) {
  const float* w = data<float>(f.ref(weight), "weight", {edges});
  double* sum = f.scratch<double>(sources);
  std::fill_n(sum, sources, 0.0);
  for (int64_t e = 0; e < edges; ++e) {
    if (w[e] < 0.0f)
      throw PlanError("Refused",
                      "an edge weight is negative: the module looks at the sign of their sums");
    sum[from[e]] += static_cast<double>(w[e]);
  }
  for (int64_t i = 0; i < sources; ++i) to[i] = static_cast<float>(sum[i]);
}

StepPtr source_degree(Reader& r) {
  const In indices = r.value();
  const Int num_src = r.integer();
  const In weight = r.at_end() ? In{} : r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t edges = f.expect(indices, "indices", DType::i32, 1).shape[0];
    const int64_t sources = f.at(num_src);
    f.check_below(indices, sources, "indices", "source_degree");
    float* to = f.make(out, DType::f32, {sources}).as<float>();
    if (weight) return add_weights(f, weight, f[indices].as<int32_t>(), edges, sources, to);
    int64_t* count = f.scratch<int64_t>(sources);
    std::fill_n(count, sources, int64_t{0});
    const int32_t* from = f[indices].as<int32_t>();
    for (int64_t e = 0; e < edges; ++e) ++count[from[e]];
    for (int64_t i = 0; i < sources; ++i) to[i] = static_cast<float>(count[i]);
  });
}

StepPtr inverse_degree(Reader& r) {
  const In indptr = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(indptr, "indptr", DType::i64, 1).shape[0] - 1;
    float* to = f.make(out, DType::f32, {std::max<int64_t>(rows, 0)}).as<float>();
    each_degree(f, indptr, [&](int64_t row, int64_t d) {
      to[row] = d > 0 ? 1.0f / static_cast<float>(d) : 0.0f;
    });
  });
}

std::string short_number(float v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", static_cast<double>(v));
  return text;
}

StepPtr deg_inv_sqrt(Reader& r) {
  const In indptr = r.value(), weight = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(indptr, "indptr", DType::i64, 1).shape[0] - 1;
    const float* w = nullptr;
    if (weight) {
      const int64_t edges = f.expect(weight, "weight", DType::f32, 1).shape[0];
      f.check_rows(indptr, edges);
      w = f[weight].as<float>();
    }
    const bool weighted = static_cast<bool>(weight);
    const int64_t* p = f[indptr].as<int64_t>();
    float* to = f.make(out, DType::f32, {std::max<int64_t>(rows, 0)}).as<float>();
    each_degree(f, indptr, [&](int64_t row, int64_t d) {
      double sum = static_cast<double>(d);
      if (weighted) {
        // In double, since float sums of weights depend on the order of edges.
        sum = 0.0;
        for (int64_t e = p[row]; e < p[row + 1]; ++e) sum += w[e];
      }
      to[row] = static_cast<float>(sum);
    });
    for (int64_t row = 0; weighted && row < rows; ++row) {
      if (to[row] < 0.0f)
        throw PlanError("GraphError",
                        "deg_inv_sqrt: node " + std::to_string(row) +
                            " has the weighted in-degree " + short_number(to[row]) +
                            " (loops included), but GCN's normalisation takes its root and needs "
                            "0 or more: use edge weights that are not negative, or "
                            "normalize=False with normalised weights");
    }
    for (int64_t row = 0; row < rows; ++row) {
      const float value = 1.0f / std::sqrt(to[row]);
      to[row] = value == INFINITY ? 0.0f : value;
    }
  });
}

StepPtr targets(Reader& r) {
  const In indptr = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f.expect(indptr, "indptr", DType::i64, 1);
    if (v.shape[0] < 1) throw ShapeError("indptr must have at least one entry");
    const int64_t rows = v.shape[0] - 1, edges = v.as<int64_t>()[rows];
    f.check_rows(indptr, edges);
    const int64_t* p = v.as<int64_t>();
    Value& made = f.make(out, DType::i64, {edges});
    int64_t* to = made.as<int64_t>();
    for (int64_t row = 0; row < rows; ++row) std::fill(to + p[row], to + p[row + 1], row);
    made.below = rows;
  });
}

StepPtr edge_index(Reader& r) {
  const In indptr = r.value(), indices = r.value(), perm = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const Csr g = checked_csr(f, indptr, indices);
    const int64_t* place = nullptr;
    if (perm) {
      place = data<int64_t>(f.ref(perm), "perm", {g.edges});
      f.check_below(perm, g.edges, "perm", "edge_index");
    }
    int64_t* to = f.make(out, DType::i64, {2, g.edges}).as<int64_t>();
    for (int64_t row = 0; row < g.rows; ++row) {
      for (int64_t e = g.indptr[row]; e < g.indptr[row + 1]; ++e) {
        const int64_t at = place == nullptr ? e : place[e];
        to[at] = g.indices[e];
        to[g.edges + at] = row;
      }
    }
  });
}

StepPtr check_degree(Reader& r) {
  const In indptr = r.value();
  const Int bound = r.integer();
  return step([=](Frame& f) {
    const int64_t most = f.at(bound);
    int64_t largest = 0, at = 0;
    each_degree(f, indptr, [&](int64_t row, int64_t d) {
      if (d > largest) largest = d, at = row;
    });
    if (largest <= most) return;
    throw PlanError("AccumulatorOverflowError",
                    "node " + std::to_string(at) + " has in-degree " + std::to_string(largest) +
                        ", but int32 sums of these codes are exact only to in-degree " +
                        std::to_string(most) +
                        ": use fewer message or attention bits, or split the node");
  });
}

}  // namespace

Operations graph_operations() {
  return {{"csr", csr},
          {"self_loops", self_loops, true},
          {"self_loops_weighted", self_loops_weighted, true},
          {"self_loops_placed", self_loops_placed, true},
          {"degree", degree, true},
          {"source_degree", source_degree, true},
          {"inverse_degree", inverse_degree, true},
          {"deg_inv_sqrt", deg_inv_sqrt, true},
          {"targets", targets, true},
          {"edge_index", edge_index, true},
          {"check_degree", check_degree, true}};
}

}  // namespace nodebits::plan
