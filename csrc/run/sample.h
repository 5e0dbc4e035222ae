// Neighbourhoods of a few nodes, sampled hop by hop from the rows of a graph.
#pragma once

#include <cstdint>
#include <vector>

namespace nodebits {

// What is sampled from; its arrays were checked before.
struct Sampled {
  const int64_t* indptr;
  const int32_t* indices;
  int64_t num_nodes;
  const int64_t* seeds;  // below the number of nodes
  int64_t num_seeds;
  const int64_t* fanouts;  // neighbours of a node in each hop, -1 for all
  int64_t hops;
  uint64_t seed;
  bool replace;  // whether a neighbour may be drawn twice
};

// The nodes that were reached, and the edges that were followed, as a graph of its own. Nodes stand
// in order of first appearance, seeds first. Each is a target in one hop only, the one after it
// appeared, so the edges stand in rows as they are drawn.
struct Neighborhood {
  std::vector<int64_t> nodes;    // their numbers in the whole graph
  std::vector<int64_t> indptr;   // [nodes + 1]
  std::vector<int32_t> indices;  // sources, by their place in `nodes`
  std::vector<int64_t> edges;    // place of every edge in the whole graph's `indices`
  std::vector<int64_t> seeds;    // place in `nodes` of every seed that was asked for
  std::vector<int64_t> reached;  // nodes that are there after the seeds, and after each hop
};

// The draws follow from the seed, the hop, the node and their number alone: the sample is the same
// for any number of threads. Time and memory follow from what is reached, not from the graph.
Neighborhood sample_neighbors(const Sampled& from, int threads);

}  // namespace nodebits
