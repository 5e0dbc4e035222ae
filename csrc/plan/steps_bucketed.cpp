// Rows of several widths (nodebits/ops/definitions/mixed.py, engine/formats/bucketed.py).
#include "plan/records.h"
#include "run/bucketed.h"
#include "run/fused.h"

namespace nodebits::plan {
namespace {

// Rows in buckets; their counts are constant, or a value of eight numbers.
struct MixedArg {
  explicit MixedArg(Reader& r) : packed(r.value()), order(r.value()) {
    if (r.at_list()) {
      counts = r.wholes();
      if (counts.size() != 8) r.fail("rows of several widths have eight counts");
    } else {
      counts_value = r.value();
    }
    num_cols = r.integer();
  }
  In packed, order, counts_value;
  std::vector<int64_t> counts;
  Int num_cols;

  MixedOf<Ref> in(Frame& f) const {
    MixedOf<Ref> made{f.ref(packed), f.ref(order), counts, f.at(num_cols)};
    if (counts_value) {
      const int64_t* n = data<int64_t>(f.ref(counts_value), "counts", {8});
      made.counts.assign(n, n + 8);
    }
    return made;
  }
};

int64_t bytes_of_rows(const uint8_t* widths, int64_t rows, int64_t cols) {
  int64_t counts[9] = {}, bytes = 0;
  count_widths(widths, rows, counts);
  for (int b = 1; b <= 8; ++b) bytes += counts[b] * packed_row_bytes(cols, b);
  return bytes;
}

StepPtr quantize_pack_bucketed(Reader& r) {
  const In x = r.value(), scale = r.value(), zero_point = r.value();
  const int axis = r.whole();
  const In widths = r.value(), position = r.value(), row_factor = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0], cols = from.shape[1];
    const uint8_t* w = data<uint8_t>(f.ref(widths), "widths", {rows});
    FusedOutput o{};
    place_rows(&o, f.ref(widths), f.optional(position), std::optional<Ref>(), rows, cols);
    o.axis = axis;
    o.bits = 8;
    const int64_t length = scale_length(axis, rows, cols);
    o.scale = data<float>(f.flat(scale, "scale", length), "scale", {length});
    std::vector<float> spread;
    o.zero_point = by_width(data<float>(f.flat(zero_point, "zero_point", 8), "zero_point", {8}),
                            axis, cols, &spread);
    if (row_factor) o.row_factor = data<float>(f.ref(row_factor), "row_factor", {rows});
    o.packed = f.make(out, DType::u8, {bytes_of_rows(w, rows, cols)}).as<uint8_t>();
    run_quantize_mixed(o, from.as<float>(), rows, cols, false, f.threads);
  });
}

StepPtr unpack_bucketed(Reader& r) {
  const MixedArg mixed(r);
  const In shift = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const MixedOf<Ref> rows = mixed.in(f);
    const Buckets buckets = buckets_of(rows);
    const uint8_t* from = data<uint8_t>(rows.packed, "packed", {buckets.bytes()});
    const uint8_t* by = shift ? data<uint8_t>(f.ref(shift), "shift", {buckets.rows}) : nullptr;
    uint8_t* to = f.make(out, DType::u8, {buckets.rows, buckets.num_cols}).as<uint8_t>();
    run_unpack_bucketed(from, by, to, buckets, f.threads);
  });
}

StepPtr fused_gemm_bucketed(Reader& r) {
  const MixedArg mixed(r);
  WeightArg weight(r);
  weight.bind(r, mixed.num_cols);
  const EpilogueArg epilogue(r);
  const SinkArg sink(r);
  return step([=](Frame& f) {
    const MixedOf<Ref> x = mixed.in(f);
    const Buckets buckets = buckets_of(x);
    const WeightArgs w = weight.in(f).args(x.num_cols);
    const int64_t rows = buckets.rows, cols = w.num_out;
    const uint8_t* packed = data<uint8_t>(x.packed, "packed", {buckets.bytes()});
    const FusedProduct product{GemmArgs{packed, weight.panel(kernels()), x.num_cols, cols, 8}, w};
    std::vector<float> room;
    const FusedTerm term{epilogue_args(epilogue.in(f, rows, cols), rows, cols, &room), nullptr,
                         nullptr};
    check(term.epilogue.heads == 1, "row factors of a product have one value per row");
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols);
    finish.args.terms = &term;
    finish.args.num_terms = 1;
    run_fused_gemm_bucketed(product, buckets, finish.args, f.threads);
  });
}

StepPtr nearest_group(Reader& r) {
  const In extent = r.value(), limits = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(extent, "extent", DType::f32, 1).shape[0];
    const int64_t groups = f.expect(limits, "limits", DType::f32, 1).shape[0];
    check(groups > 0, "limits must hold at least one group");
    Value& to = f.make(out, DType::i32, {rows});
    run_nearest_group(f[extent].as<float>(), rows, f[limits].as<float>(), groups, to.as<int32_t>(),
                      f.threads);
    to.below = groups;
  });
}

}  // namespace

Operations bucketed_operations() {
  return {{"quantize_pack_bucketed", quantize_pack_bucketed},
          {"unpack_bucketed", unpack_bucketed},
          {"fused_gemm_bucketed", fused_gemm_bucketed},
          {"nearest_group", nearest_group}};
}

}  // namespace nodebits::plan
