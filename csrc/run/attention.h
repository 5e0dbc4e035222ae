// Attention between the rows of every graph of a batch.
#pragma once

#include <cstdint>

namespace nodebits {

struct AttentionArgs {
  const float* query;    // [rows, heads * width]
  const float* key;      // the same
  const float* value;    // the same
  const int64_t* batch;  // [rows], ascending: the graph of every row; null: one graph
  float* out;            // [rows, heads * width]
  int64_t rows;
  int64_t heads;
  int64_t width;  // columns of a head
};

// False where `batch` falls, and nothing is written.
bool run_graph_attention(const AttentionArgs& a, int threads);

}  // namespace nodebits
