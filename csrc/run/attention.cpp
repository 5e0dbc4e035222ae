// Sums over columns and keys run in their order, each term rounded by itself: lanes are keys in the
// scores and columns in the sum of values, so no order of a sum depends on a vector's width.
#include "run/attention.h"

#include <cmath>
#include <vector>

#include "contract/exponential.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr int64_t kQueries = 32;  // rows of a task, which share the transposed keys

struct Graph {
  int64_t begin, end;
};

// Rows [first, last) of a graph, at one head.
void attend(const AttentionArgs& a, const Graph& graph, int64_t head, int64_t first, int64_t last) {
  const int64_t n = graph.end - graph.begin, stride = a.heads * a.width;
  const float* key = a.key + graph.begin * stride + head * a.width;
  const float* value = a.value + graph.begin * stride + head * a.width;
  thread_local std::vector<float> room;
  room.resize(static_cast<size_t>((a.width + 1) * n));
  float *const keys = room.data(), *const weights = keys + a.width * n;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c < a.width; ++c) keys[c * n + j] = key[j * stride + c];
  }
  const float factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.width)));
  for (int64_t i = first; i < last; ++i) {
    const float* query = a.query + i * stride + head * a.width;
    float* out = a.out + i * stride + head * a.width;
    for (int64_t j = 0; j < n; ++j) weights[j] = 0.0f;
    for (int64_t c = 0; c < a.width; ++c) {
      const float q = query[c], *k = keys + c * n;
      for (int64_t j = 0; j < n; ++j) weights[j] += q * k[j];
    }
    float top = -INFINITY;
    for (int64_t j = 0; j < n; ++j) {
      weights[j] *= factor;
      top = weights[j] > top ? weights[j] : top;
    }
    for (int64_t j = 0; j < n; ++j) weights[j] = exp_nonpositive(weights[j] - top);
    float total = 0.0f;
    for (int64_t c = 0; c < a.width; ++c) out[c] = 0.0f;
    for (int64_t j = 0; j < n; ++j) {
      const float w = weights[j], *v = value + j * stride;
      total += w;
      for (int64_t c = 0; c < a.width; ++c) out[c] += w * v[c];
    }
    for (int64_t c = 0; c < a.width; ++c) out[c] /= total;
  }
}

}  // namespace

bool run_graph_attention(const AttentionArgs& a, int threads) {
  struct Part {
    Graph graph;
    int64_t first, last;
  };
  std::vector<Part> parts;
  double pairs = 0.0;
  for (int64_t begin = 0, end; begin < a.rows; begin = end) {
    end = a.batch == nullptr ? a.rows : begin + 1;
    while (end < a.rows && a.batch[end] == a.batch[begin]) ++end;
    if (end < a.rows && a.batch[end] < a.batch[begin]) return false;
    for (int64_t first = begin; first < end; first += kQueries) {
      const int64_t last = first + kQueries < end ? first + kQueries : end;
      parts.push_back({{begin, end}, first, last});
    }
    pairs += static_cast<double>(end - begin) * static_cast<double>(end - begin);
  }
  const int64_t count = static_cast<int64_t>(parts.size());
  if (count == 0 || a.heads * a.width == 0) return true;
  const double work = 2.0 * pairs * static_cast<double>(a.heads * a.width);
  split_rows(count * a.heads, static_cast<int64_t>(work) / (count * a.heads) + 1, threads,
             [&](int64_t begin, int64_t end) {
               for (int64_t task = begin; task < end; ++task) {
                 const Part& part = parts[static_cast<size_t>(task / a.heads)];
                 attend(a, part.graph, task % a.heads, part.first, part.last);
               }
             });
  return true;
}

}  // namespace nodebits
