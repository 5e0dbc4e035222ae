// Edges of several relations: one graph cut into those of each, and graphs of each made one.
#include <algorithm>
#include <string>
#include <vector>

#include "plan/compressed.h"
#include "plan/program.h"

namespace nodebits::plan {
namespace {

// Rows of the edges of every relation, whose kinds come in the order the edges were given in.
StepPtr by_relation(Reader& r) {
  const In indptr = r.value(), indices = r.value(), perm = r.optional(), kinds = r.value();
  const int count = r.whole();
  if (count < 1 || r.outs_left() != 2 * count) r.fail("it has two results for each relation");
  std::vector<int> outs;
  while (r.outs_left() > 0) outs.push_back(r.out());
  return step([=](Frame& f) {
    const Csr g = checked_csr(f, indptr, indices);
    const int64_t* kind = data<int64_t>(f.ref(kinds), "edge_type", {g.edges});
    f.check_below(kinds, count, "edge_type", "by_relation");
    const int64_t* place = nullptr;
    if (perm) {
      place = data<int64_t>(f.ref(perm), "perm", {g.edges});
      f.check_below(perm, g.edges, "perm", "by_relation");
    }
    std::vector<int64_t> edges(static_cast<size_t>(count), 0);
    for (int64_t e = 0; e < g.edges; ++e) ++edges[static_cast<size_t>(kind[e])];
    const int64_t below = f[indices].below;
    std::vector<int64_t*> pointers;
    std::vector<int32_t*> sources;
    for (int k = 0; k < count; ++k) {
      const int64_t own = edges[static_cast<size_t>(k)];
      Value& ptr = f.make(outs[static_cast<size_t>(2 * k)], DType::i64, {g.rows + 1});
      Value& idx = f.make(outs[static_cast<size_t>(2 * k) + 1], DType::i32, {own});
      ptr.ends = own;
      idx.below = below;
      pointers.push_back(ptr.as<int64_t>());
      sources.push_back(idx.as<int32_t>());
      edges[static_cast<size_t>(k)] = 0;
    }
    for (int64_t row = 0; row <= g.rows; ++row) {
      for (size_t k = 0; k < pointers.size(); ++k) pointers[k][row] = edges[k];
      if (row == g.rows) break;
      for (int64_t e = g.indptr[row]; e < g.indptr[row + 1]; ++e) {
        const auto k = static_cast<size_t>(kind[place == nullptr ? e : place[e]]);
        sources[k][edges[k]++] = g.indices[e];
      }
    }
  });
}

// Which part of a joined graph edges are.
struct Part {
  In indptr, indices;
  Int sources;
  size_t target;  // which block of targets
};

// Nodes of a type after those before, whose numbers are int32.
int64_t with_nodes(int64_t before, int64_t own, const char* what) {
  if (own < 0 || own >= INT32_MAX || before + own >= INT32_MAX)
    throw PlanError("GraphError", "the graph of all relations has " + std::to_string(before) +
                                      " and " + std::to_string(own) + " " + what +
                                      ": node indices are int32, below 2147483647; cut the "
                                      "graph, or sample neighbours");
  return before + own;
}

// One graph of several: every part has sources of its own, one below the other, and leads to a
// block of targets. A row has its edges part by part.
StepPtr joined_rows(Reader& r) {
  const std::vector<In> pointers = r.values(), lists = r.values();
  const std::vector<Int> sources = r.integers();
  const std::vector<int64_t> blocks = r.wholes();
  const std::vector<Int> counts = r.integers();
  const size_t size = pointers.size();
  if (size == 0 || lists.size() != size || sources.size() != size || blocks.size() != size)
    r.fail("every part has pointers, edges, a number of sources and a block of targets");
  std::vector<Part> parts;
  for (size_t k = 0; k < size; ++k) {
    if (blocks[k] < 0 || blocks[k] >= static_cast<int64_t>(counts.size()))
      r.fail("there are " + std::to_string(counts.size()) + " blocks of targets");
    parts.push_back({pointers[k], lists[k], sources[k], static_cast<size_t>(blocks[k])});
  }
  const int out_ptr = r.out(), out_idx = r.out();
  return step([=](Frame& f) {
    struct Edges {
      Csr csr;
      int64_t first;  // number of its first source
    };
    int64_t rows = 0, edges = 0, nodes = 0;
    for (const Int& count : counts) rows = with_nodes(rows, f.at(count), "targets");
    std::vector<std::vector<Edges>> into(counts.size());
    for (const Part& part : parts) {
      const Csr csr = checked_csr(f, part.indptr, part.indices);
      const int64_t own = f.at(part.sources), expected = f.at(counts[part.target]);
      const int64_t first = nodes;
      nodes = with_nodes(nodes, own, "sources");
      if (csr.rows != expected)
        throw PlanError("GraphError", "a relation leads to " + std::to_string(csr.rows) +
                                          " targets of a type with " + std::to_string(expected));
      f.check_below(part.indices, own, "indices", "the type of its sources");
      into[part.target].push_back({csr, first});
      edges += csr.edges;
    }
    Value& ptr = f.make(out_ptr, DType::i64, {rows + 1});
    Value& idx = f.make(out_idx, DType::i32, {edges});
    int64_t* pointer = ptr.as<int64_t>();
    int32_t* to = idx.as<int32_t>();
    int64_t at = 0;
    for (size_t block = 0; block < counts.size(); ++block) {
      for (int64_t row = 0, end = f.at(counts[block]); row < end; ++row) {
        *pointer++ = at;
        for (const Edges& part : into[block]) {
          for (int64_t e = part.csr.indptr[row]; e < part.csr.indptr[row + 1]; ++e)
            to[at++] = static_cast<int32_t>(part.csr.indices[e] + part.first);
        }
      }
    }
    *pointer = at;
    ptr.ends = edges;
    idx.below = nodes;
  });
}

}  // namespace

Operations relation_operations() {
  return {{"by_relation", by_relation, true}, {"joined_rows", joined_rows, true}};
}

}  // namespace nodebits::plan
