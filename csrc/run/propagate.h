// K steps of propagation on packed codes, without a float matrix between steps.
#pragma once

#include <cstdint>
#include <vector>

#include "contract/kernels.h"
#include "run/edge_blocks.h"

namespace nodebits {

// One neighbour sum: how its rows become codes.
struct PropagateRound {
  const float* scale;       // [num_cols]
  const float* zero_point;  // [num_cols], for reading codes
  const float* made_with;   // [num_cols], zero point for making them
  int bits;
};

struct PropagateArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const float* x;       // [rows, num_cols]
  const float* factor;  // [rows] or null: the adjacency's two diagonal factors
  float* out;           // [rows, num_cols]
  int64_t num_edges;
  int64_t num_cols;
  // In the order of the sums: a step's message, then, where its coefficient is not 0, its change.
  std::vector<PropagateRound> rounds;
  std::vector<float> coefficients;  // one per step
  bool laplacian;
  const EdgeBlocks* blocks;  // the same edges regrouped, or null
  float keep;
  float teleport;
};

void run_propagate(const PropagateArgs& a, int64_t rows, int threads);

}  // namespace nodebits
