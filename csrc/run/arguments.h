// Records to the arguments of the drivers, checked against each other.
#pragma once

#include <algorithm>
#include <vector>

#include "run/bucketed.h"
#include "run/propagate.h"
#include "run/records.h"

namespace nodebits {

// All but the output.
template <class A>
SpmmArgs spmm_args(const EdgesOf<A>& edges, const SourceOf<A>& source) {
  SpmmArgs a{};
  const int64_t r = edges.rows(), e = edges.count();
  a.packed = source.checked();
  a.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {e});
  a.heads = 1;
  if (edges.weight) {
    a.heads = size(*edges.weight, 1, "weight");
    check(a.heads > 0 && source.num_cols % a.heads == 0,
          "num_cols must be a multiple of the weight's columns");
    a.weight = data<uint8_t>(*edges.weight, "weight", {e, a.heads});
  }
  a.num_edges = e;
  a.num_cols = source.num_cols;
  a.bits = source.bits;
  a.coding = source.coding;
  check(e == 0 || source.rows() > 0, "edges lead to a table without rows");
  return a;
}

// The bias of an epilogue without one is all -0, which leaves every float as it is. `room` is used
// where there are more columns than usual.
const float* no_bias(int64_t cols, std::vector<float>* room);

template <class A>
RescaleArgs epilogue_args(const EpilogueOf<A>& in, int64_t rows, int64_t cols,
                          std::vector<float>* room) {
  const std::optional<A>& factor = in.row_offset ? in.row_offset : in.row_scale;
  const int64_t heads = factor ? size(*factor, 1, "row_scale") : 1;
  check(heads > 0 && cols % heads == 0,
        "the columns must be a multiple of the row factors' columns");
  RescaleArgs a{};
  a.col_scale = data<float>(in.col_scale, "col_scale", {cols});
  if (in.col_offset) a.col_offset = data<float>(*in.col_offset, "col_offset", {cols});
  if (in.row_offset) a.row_offset = data<float>(*in.row_offset, "row_offset", {rows, heads});
  if (in.row_scale) a.row_scale = data<float>(*in.row_scale, "row_scale", {rows, heads});
  a.bias = in.bias ? data<float>(*in.bias, "bias", {cols}) : no_bias(cols, room);
  a.num_cols = cols;
  a.heads = heads;
  return a;
}

// `order` must be a permutation: the caller made it by sorting.
template <class A>
Buckets buckets_of(const MixedOf<A>& in) {
  check(in.counts.size() == 8, "counts needs one entry per width 1 to 8");
  check_cols(in.num_cols);
  int64_t rows = 0;
  for (int64_t n : in.counts) {
    check(n >= 0 && n <= INT32_MAX, "counts must be 0 to 2^31 - 1");
    rows += n;
  }
  const Buckets b{data<int32_t>(in.order, "order", {rows}), in.counts.data(), rows, in.num_cols};
  check(first_outside(b.order, rows, rows, 1) < 0, "order must be a permutation of the rows");
  return b;
}

// Rows of every width 1 to 8; loops without branches, since every forward checks them.
void count_widths(const uint8_t* widths, int64_t rows, int64_t counts[9]);

// Where the codes of rows of several widths go: see FusedOutput.
template <class A>
void place_rows(FusedOutput* o, const A& widths, const std::optional<A>& position,
                const std::optional<A>& shift, int64_t rows, int64_t cols) {
  o->widths = data<uint8_t>(widths, "widths", {rows});
  int64_t counts[9] = {};
  count_widths(o->widths, rows, counts);
  check(position.has_value() != shift.has_value(),
        "rows of several widths need a position in their bucket, or a shift");
  bool outside = false;
  if (shift) {
    o->shift = data<uint8_t>(*shift, "shift", {rows});
    for (int64_t i = 0; i < rows; ++i) outside |= o->shift[i] > 7 || o->shift[i] + o->widths[i] > 8;
    check(!outside, "width + shift must be at most 8");
    o->bytes = rows * cols;
    return;
  }
  o->position = data<int32_t>(*position, "position", {rows});
  for (int64_t i = 0; i < rows; ++i)
    outside |= o->position[i] < 0 || o->position[i] >= counts[o->widths[i]];
  check(!outside, "position must be below the number of rows of that width");
  for (int b = 1; b <= 8; ++b) {
    o->bucket_begin[b] = o->bytes;
    o->bytes += counts[b] * packed_row_bytes(cols, b);
  }
}

// A zero point for every width becomes a row for every width where the scale is a column's.
const float* by_width(const float* zero_point, int axis, int64_t cols, std::vector<float>* room);

// How a fused operator goes on: quantizers and the matrices they fill, or one float matrix. A is an
// array that is read, O one that is written.
template <class A, class O>
struct Finish {
  std::vector<FusedOutput> outputs;
  std::vector<std::vector<float>> zero_points;  // see by_width
  FusedArgs args{};

  Finish(const SinkOf<A>& sink, const std::vector<O>& out, int64_t rows, int64_t cols) {
    const size_t n = sink.outputs.size();
    check(out.size() == std::max<size_t>(n, 1), "one output per quantizer, or one float matrix");
    outputs.reserve(n);
    for (size_t i = 0; i < n; ++i) add(sink.outputs[i], out[i], rows, cols);
    if (n == 0) args.floats = data<float>(out[0], "out", {rows, cols});
    check(sink.post_scale.has_value() == sink.post_shift.has_value(),
          "post_scale and post_shift come together");
    if (sink.post_scale) {
      args.post_scale = data<float>(*sink.post_scale, "post_scale", {cols});
      args.post_shift = data<float>(*sink.post_shift, "post_shift", {cols});
    }
    args.relu = sink.relu;
    args.outputs = outputs.data();
    args.num_outputs = static_cast<int>(n);
    args.num_cols = cols;
  }

 private:
  void add(const OutputOf<A>& q, const O& out, int64_t rows, int64_t cols) {
    check_bits(q.bits);
    FusedOutput o{};
    o.bits = q.bits;
    if (q.row_factor) o.row_factor = data<float>(*q.row_factor, "row_factor", {rows});
    // Pointers into empty tensors are null: what was given is asked, not what it points to.
    const bool mixed = q.widths.has_value(), placed = q.position.has_value();
    if (mixed) place_rows(&o, *q.widths, q.position, q.shift, rows, cols);
    o.axis = placed ? 0 : size(q.scale, 0, "scale") != 1 ? 1 : -1;
    const int64_t length = o.axis == 0 ? rows : o.axis == 1 ? cols : 1;
    o.scale = data<float>(q.scale, "scale", {length});
    if (mixed) {
      zero_points.emplace_back();
      o.zero_point =
          by_width(data<float>(q.zero_point, "zero_point", {8}), o.axis, cols, &zero_points.back());
      o.packed =
          placed ? data<uint8_t>(out, "out", {o.bytes}) : data<uint8_t>(out, "out", {rows, cols});
    } else {
      o.zero_point = data<float>(q.zero_point, "zero_point", {length});
      o.packed = data<uint8_t>(out, "out", {rows, packed_row_bytes(cols, o.bits)});
      o.bytes = rows * packed_row_bytes(cols, o.bits);
    }
    outputs.push_back(o);
  }
};

// What a sum takes from its target itself, beside the epilogue in `term`.
template <class A>
void take_own(const OwnOf<A>& own, const SourceOf<A>& source, int64_t rows, FusedTerm* term,
              FusedArgs* finish) {
  if (own.acc_scale) term->acc_scale = data<int32_t>(*own.acc_scale, "acc_scale", {rows});
  if (own.acc_offset) term->acc_offset = data<int32_t>(*own.acc_offset, "acc_offset", {rows});
  check(own.own.has_value() == own.own_factor.has_value(), "own and own_factor come together");
  if (own.own) {
    finish->own =
        data<uint8_t>(*own.own, "own", {rows, packed_row_bytes(source.num_cols, source.bits)});
    finish->own_factor = *data<float>(*own.own_factor, "own_factor", {1});
  }
  finish->own_bits = source.bits;
  finish->own_coding = source.coding;
}

// All but the edge blocks and the check of indptr. One row of scale, zero_point and made_with per
// neighbour sum, in the order of the sums.
template <class A, class O>
PropagateArgs propagate_args(const EdgesOf<A>& edges, const A& x, const std::optional<A>& factor,
                             const RoundsOf<A>& rounds, const StepsRecord& steps, const O& out) {
  const int64_t r = edges.rows(), e = edges.count();
  const int64_t c = size(x, 1, "x"), n = static_cast<int64_t>(rounds.bits.size());
  check(!edges.weight, "the steps take no edge weights");
  PropagateArgs a{};
  a.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
  a.indices = data<int32_t>(edges.indices, "indices", {e});
  a.x = data<float>(x, "x", {r, c});
  if (factor) a.factor = data<float>(*factor, "factor", {r});
  a.out = data<float>(out, "out", {r, c});
  a.num_edges = e;
  a.num_cols = c;
  const float* s = data<float>(rounds.scale, "scale", {n, c});
  const float* z = data<float>(rounds.zero_point, "zero_point", {n, c});
  const float* m = data<float>(rounds.made_with, "made_with", {n, c});
  for (int64_t i = 0; i < n; ++i) {
    const int bits = rounds.bits[static_cast<size_t>(i)];
    check_bits(bits);
    a.rounds.push_back({s + i * c, z + i * c, m + i * c, bits});
  }
  int64_t sums = 0;
  for (double coefficient : steps.coefficients) {
    a.coefficients.push_back(static_cast<float>(coefficient));
    sums += a.coefficients.back() != 0.0f ? 2 : 1;
  }
  check(sums == n && sums > 0, "bits must have one entry per neighbour sum");
  a.laplacian = steps.laplacian;
  a.keep = static_cast<float>(1.0 - steps.teleport);
  a.teleport = static_cast<float>(steps.teleport);
  return a;
}

}  // namespace nodebits
