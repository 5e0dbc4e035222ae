// Narrow propagation (at most 16 columns) with several rows to a register.
//
// Nodes are renumbered by falling degree and cut into slices of 64 / lanes: the rows of a slice
// have about as many edges each, which are laid out step by step, the first edge of every row, then
// the second, and so on (the layout SELL-C-sigma of sparse matrices). A row that has run out of
// edges points to a row of zeros. No branch then depends on a row's degree. Finding the order takes
// about as long as a step.
#pragma once

#include <cstdint>
#include <vector>

#include "run/propagate.h"

namespace nodebits {

constexpr int64_t kMaxLanes = 16;    // columns of the narrow form
constexpr size_t kSlicedRounds = 3;  // sums from which the renumbering pays

// Bytes that a row of codes takes: a power of two, 4 to 16.
int lanes_of(int64_t cols);

// A parameter of one round, n values repeated (and filled up with `rest`) to `lanes`.
std::vector<float> padded(const float* values, int64_t n, int lanes, float rest);

// What run_propagate does, for plain steps of rows that fit_lanes accepts.
void run_sliced(const PropagateArgs& a, int64_t rows, int threads);

}  // namespace nodebits
