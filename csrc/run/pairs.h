// Scores and sums of edges at which the codes of two rows meet.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "contract/pairs.h"
#include "run/arguments.h"

namespace nodebits {

// `codes` [edges, heads] and `row_sum` [rows, heads]: the softmax of the scores in `bits`.
struct PairSoftmax {
  uint8_t* codes;
  int32_t* row_sum;
  int bits;
};

void run_pair_scores(const ScoreArgs& a, float* scores, int64_t rows, int threads);
void run_attention_codes(const ScoreArgs& a, const PairSoftmax& to, int64_t rows, int threads);
void run_rectified_sum(const PairSumArgs& a, int64_t rows, int threads);
void run_rectified_softmax(const PairSumArgs& a, int64_t rows, int threads);
void run_gated_sum(const PairSumArgs& a, int64_t rows, int threads);

// Rows whose fields are unsigned: their own, or a copy that is kept here.
class PlainRows {
 public:
  template <class A>
  PlainRows(const SourceOf<A>& source, int64_t num_cols, int threads)
      : packed_(source.checked()), bits_(source.bits) {
    check(source.num_cols == num_cols, "rows that meet have one number of columns");
    copy_ = recoded(packed_, source.rows(), num_cols, source.bits, source.coding, threads);
  }
  FieldRows rows() const { return {copy_ ? copy_->memory : packed_, bits_}; }

 private:
  const uint8_t* packed_;
  int bits_;
  std::unique_ptr<Buffer> copy_;
};

// The columns' numbers, all of which must lie between two bounds.
template <class A>
const int32_t* bounded(const A& values, const char* name, int64_t length, int32_t low,
                       int32_t high) {
  const int32_t* v = data<int32_t>(values, name, {length});
  bool outside = false;
  for (int64_t c = 0; c < length; ++c) outside |= v[c] < low || v[c] > high;
  if (outside)
    throw ShapeError(std::string(name) + " must hold " + std::to_string(low) + " to " +
                     std::to_string(high));
  return v;
}

// The places of the edges' rows, all within `rows` of them.
template <class A>
const int64_t* places_of(const std::optional<A>& order, int64_t edges, int64_t rows) {
  if (!order) {
    check(rows == edges, "there is a row for every edge");
    return nullptr;
  }
  const int64_t* at = data<int64_t>(*order, "order", {edges});
  bool outside = false;
  for (int64_t e = 0; e < edges; ++e) outside |= at[e] < 0 || at[e] >= rows;
  check(!outside, "order must lead to rows of edges");
  return at;
}

// Rows of edges that are added to those of sources: of the place `at` of a list, which may be
// shorter.
class JoinedRows {
 public:
  template <class A>
  JoinedRows(const std::vector<JoinedOf<A>>& joined, size_t at, int64_t edges, int64_t num_cols,
             int threads) {
    if (at >= joined.size()) return;
    const JoinedOf<A>& one = joined[at];
    order_ = places_of(one.order, edges, one.rows.rows());
    rows_.emplace(one.rows, num_cols, threads);
  }
  EdgeFields fields() const { return rows_ ? EdgeFields{rows_->rows(), order_} : EdgeFields{}; }

 private:
  std::optional<PlainRows> rows_;
  const int64_t* order_ = nullptr;
};

template <class A>
void check_ends(const EdgesOf<A>& edges, const SourceOf<A>& source) {
  check(!edges.weight && !edges.blocks, "edges of pairs have no weights and no blocks");
  check(edges.count() == 0 || source.rows() > 0, "edges lead to a table without rows");
}

// All but the rows.
template <class A>
ScoreArgs score_args(const EdgesOf<A>& edges, const SourceOf<A>& source, const SourceOf<A>& target,
                     const std::optional<A>& vector, const std::optional<A>& floor, const A& factor,
                     const A& source_factor) {
  check_ends(edges, source);
  ScoreArgs a{};
  const int64_t cols = source.num_cols;
  a.indptr = data<int64_t>(edges.indptr, "indptr", {edges.rows() + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {edges.count()});
  check(target.rows() == edges.rows(), "target has a row for every row of indptr");
  a.num_cols = cols;
  a.heads = size(factor, 0, "factor");
  check(a.heads > 0 && cols % a.heads == 0, "num_cols must be a multiple of the heads");
  check(cols / a.heads <= kMostScored, "the sums of a score could pass int32");
  a.factor = data<float>(factor, "factor", {a.heads});
  a.source_factor = data<float>(source_factor, "source_factor", {a.heads});
  check(vector.has_value() == floor.has_value(), "vector and floor come together");
  if (vector) {
    a.vector = bounded(*vector, "vector", cols, -255, 255);
    a.floor = bounded(*floor, "floor", cols, 0, 766);
  }
  return a;
}

// All but the rows and the output.
template <class A>
PairSumArgs pair_sum_args(const EdgesOf<A>& edges, const SourceOf<A>& source, const A& zero_point,
                          const A& scale) {
  check_ends(edges, source);
  PairSumArgs a{};
  a.indptr = data<int64_t>(edges.indptr, "indptr", {edges.rows() + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {edges.count()});
  a.num_cols = source.num_cols;
  a.zero_point = data<float>(zero_point, "zero_point", {a.num_cols});
  a.scale = data<float>(scale, "scale", {a.num_cols});
  return a;
}

// The weights of distances: the largest message has one.
template <class A>
const uint8_t* softmax_table(const A& table) {
  const uint8_t* made = data<uint8_t>(table, "table", {kSoftmaxWeights});
  check(made[0] > 0, "the largest message has a weight");
  return made;
}

template <class A>
void check_gated(const EdgesOf<A>& edges, const SourceOf<A>& source, const SourceOf<A>& target,
                 const SourceOf<A>& value, size_t joined, int64_t gate_zero) {
  check(target.rows() == edges.rows(), "target has a row for every row of indptr");
  check(value.rows() == source.rows(), "value has a row for every row of the source");
  check(joined == 0 || joined == 2, "rows of edges join the sources and the values, or neither");
  check(gate_zero >= 0 && gate_zero <= 255, "gate_zero must be 0 to 255");
}

}  // namespace nodebits
