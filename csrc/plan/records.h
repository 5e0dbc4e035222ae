// The records of operators among the arguments of steps: read once, resolved in every run.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "plan/panels.h"
#include "plan/program.h"
#include "run/arguments.h"

namespace nodebits::plan {

struct EdgesArg {
  explicit EdgesArg(Reader& r)
      : indptr(r.value()), indices(r.value()), weight(r.optional()), blocks(r.optional()) {
    if (blocks) r.fail("blocks are null in a plan: the executor makes its own");
  }
  In indptr, indices, weight, blocks;

  // Checked against a table of so many rows.
  EdgesOf<Ref> in(Frame& f, int64_t sources) const {
    f.expect(indices, "indices", DType::i32, 1);
    f.check_rows(indptr, f[indices].shape[0]);
    f.check_below(indices, sources, "indices", "the table");
    return {f.ref(indptr), f.ref(indices), f.optional(weight), std::nullopt};
  }
};

struct SourceArg {
  SourceArg() = default;
  explicit SourceArg(Reader& r)
      : packed(r.value()), bits(r.bits()), num_cols(r.integer()), coding(r.whole()) {}
  In packed;
  int bits = 0;
  Int num_cols;
  int coding = 0;

  SourceOf<Ref> in(Frame& f) const { return {f.ref(packed), bits, f.at(num_cols), coding}; }
};

struct WeightArg {
  In packed;
  int bits = 0;
  bool midrise = false;
  std::shared_ptr<const Panels> panels;  // of a constant

  WeightArg() = default;
  explicit WeightArg(Reader& r) : packed(r.value()), bits(r.bits()), midrise(r.flag()) {}

  // Makes the panels, where everything is known.
  void bind(Reader& r, const Int& depth) {
    const Value* v = r.constant(packed);
    if (midrise && bits > 7) r.fail("midrise weights have at most 7 bits");
    if (v == nullptr || depth.value >= 0) return;
    check_cols(depth.plus);
    if (v->dtype != DType::u8 || v->ndim != 2 || v->shape[1] != packed_row_bytes(depth.plus, bits))
      r.fail("the weight is " + std::string(name_of(v->dtype)) + " " + shape_text(*v) + ", but " +
             std::to_string(depth.plus) + " columns of " + std::to_string(bits) + " bits take " +
             std::to_string(packed_row_bytes(depth.plus, bits)) + " bytes a row");
    r.program.widest = std::max(r.program.widest, v->shape[0]);
    panels = std::make_shared<Panels>(
        WeightArgs{v->as<uint8_t>(), v->shape[0], depth.plus, bits, midrise});
  }

  WeightOf<Ref> in(const Frame& f) const { return {f.ref(packed), bits, midrise}; }
  const void* panel(const Kernels& k) const { return panels == nullptr ? nullptr : panels->of(k); }
};

struct EpilogueArg {
  EpilogueArg() = default;
  explicit EpilogueArg(Reader& r)
      : col_scale(r.value()),
        col_offset(r.optional()),
        row_offset(r.optional()),
        row_scale(r.optional()),
        bias(r.optional()) {}
  In col_scale, col_offset, row_offset, row_scale, bias;

  // Whether it is the same in every row of every run. An offset of zeros leaves its factor without
  // a meaning.
  bool by_column(const Reader& r) const {
    if (r.constant(col_scale) == nullptr || row_scale || !r.constant_or_null(col_offset) ||
        !r.constant_or_null(bias))
      return false;
    if (!row_offset) return true;
    const Value* offset = r.constant(col_offset);
    if (offset == nullptr || offset->dtype != DType::f32) return false;
    const float* values = offset->as<float>();
    return std::all_of(values, values + offset->count(), [](float v) { return v == 0.0f; });
  }

  EpilogueOf<Ref> in(Frame& f, int64_t rows, int64_t cols) const {
    EpilogueOf<Ref> made{f.flat(col_scale, "col_scale", cols), {}, {}, {}, {}};
    if (col_offset) made.col_offset = f.flat(col_offset, "col_offset", cols);
    if (bias) made.bias = f.flat(bias, "bias", cols);
    int64_t heads = 1;
    for (In in : {row_offset, row_scale}) {
      if (in && f[in].ndim == 2 && f[in].shape[1] > 1) heads = f[in].shape[1];
    }
    if (row_offset) made.row_offset = f.by_head(row_offset, "row_offset", rows, heads);
    if (row_scale) made.row_scale = f.by_head(row_scale, "row_scale", rows, heads);
    return made;
  }
};

struct SinkArg {
  struct Output {
    In scale, zero_point;
    int bits = 0;
    In row_factor, widths, position, shift;
  };
  bool relu = false;
  std::vector<Output> outputs;
  In post_scale, post_shift;
  std::vector<int> outs;

  SinkArg() = default;
  explicit SinkArg(Reader& r) : relu(r.flag()) {
    const std::vector<In> scale = r.values(), zero_point = r.values();
    const std::vector<int64_t> bits = r.wholes();
    const std::vector<In> row_factor = r.optionals(), widths = r.optionals(),
                          position = r.optionals(), shift = r.optionals();
    const size_t n = scale.size();
    for (size_t size : {zero_point.size(), bits.size(), row_factor.size(), widths.size(),
                        position.size(), shift.size()}) {
      if (size != n) r.fail("the lists of the outputs have different lengths");
    }
    for (size_t i = 0; i < n; ++i) {
      if (bits[i] < 1 || bits[i] > 8) r.fail("out_bits must be 1 to 8");
      outputs.push_back({scale[i], zero_point[i], static_cast<int>(bits[i]), row_factor[i],
                         widths[i], position[i], shift[i]});
    }
    post_scale = r.optional();
    post_shift = r.optional();
    for (size_t i = 0; i < std::max<size_t>(n, 1); ++i) outs.push_back(r.out());
  }

  // Whether codes are made, and depend on nothing but their column's value.
  bool by_column(const Reader& r) const {
    for (const Output& o : outputs) {
      if (r.constant(o.scale) == nullptr || r.constant(o.zero_point) == nullptr || o.row_factor ||
          o.widths || o.position || o.shift)
        return false;
    }
    return !outputs.empty() && r.constant_or_null(post_scale) && r.constant_or_null(post_shift);
  }

  // Makes the results, and what fills them; float rows that go elsewhere are not made.
  Finish<Ref, OutRef> in(Frame& f, int64_t rows, int64_t cols, bool elsewhere = false) const {
    SinkOf<Ref> sink;
    sink.relu = relu;
    if (post_scale) sink.post_scale = f.ref(post_scale);
    if (post_shift) sink.post_shift = f.ref(post_shift);
    std::vector<OutRef> made;
    made.reserve(outs.size());
    sink.outputs.reserve(outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Output& o = outputs[i];
      const bool mixed = static_cast<bool>(o.widths), placed = static_cast<bool>(o.position);
      const int64_t length = placed ? rows : f[o.scale].count() == 1 ? 1 : cols;
      sink.outputs.push_back({f.flat(o.scale, "scale", length),
                              f.flat(o.zero_point, "zero_point", mixed ? 8 : length), o.bits,
                              f.optional(o.row_factor), f.optional(o.widths),
                              f.optional(o.position), f.optional(o.shift)});
      if (placed && mixed) {
        int64_t counts[9] = {}, bytes = 0;
        count_widths(data<uint8_t>(f.ref(o.widths), "widths", {rows}), rows, counts);
        for (int b = 1; b <= 8; ++b) bytes += counts[b] * packed_row_bytes(cols, b);
        made.push_back({&f.make(outs[i], DType::u8, {bytes})});
      } else {
        const int64_t width = mixed ? cols : packed_row_bytes(cols, o.bits);
        made.push_back({&f.make(outs[i], DType::u8, {rows, width})});
      }
    }
    if (outputs.empty())
      made.push_back(
          {elsewhere ? &f.unmade(rows, cols) : &f.make(outs[0], DType::f32, {rows, cols})});
    return Finish<Ref, OutRef>(sink, made, rows, cols);
  }
};

struct OwnArg {
  explicit OwnArg(Reader& r)
      : acc_scale(r.optional()),
        acc_offset(r.optional()),
        own(r.optional()),
        own_factor(r.optional()) {}
  In acc_scale, acc_offset, own, own_factor;

  OwnOf<Ref> in(Frame& f) const {
    OwnOf<Ref> made{f.optional(acc_scale), f.optional(acc_offset), f.optional(own), {}};
    if (own_factor) made.own_factor = f.flat(own_factor, "own_factor", 1);
    return made;
  }
};

}  // namespace nodebits::plan
