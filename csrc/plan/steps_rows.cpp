// Rows of one width: packing, quantizing, reading.
#include <cmath>

#include "plan/finite.h"
#include "plan/own_scale.h"
#include "plan/records.h"
#include "run/dispatch.h"
#include "run/drivers.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

StepPtr pack(Reader& r) {
  const In codes = r.value();
  const int bits = r.bits(), out = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(codes, "codes", DType::u8, 2);
    const int64_t rows = from.shape[0], cols = from.shape[1];
    Value& to = f.make(out, DType::u8, {rows, packed_row_bytes(cols, bits)});
    run_pack({from.as<uint8_t>(), to.as<uint8_t>(), cols, bits}, rows, f.threads);
  });
}

StepPtr unpack(Reader& r) {
  const In packed = r.value();
  const int bits = r.bits();
  const Int num_cols = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> source{f.ref(packed), bits, f.at(num_cols), 0};
    const uint8_t* from = source.checked();
    const int64_t rows = source.rows();
    Value& to = f.make(out, DType::u8, {rows, source.num_cols});
    run_unpack({from, to.as<uint8_t>(), source.num_cols, bits}, rows, f.threads);
  });
}

StepPtr gather_rows(Reader& r) {
  const SourceArg source(r);
  if (source.coding != 0) r.fail("gather_rows reads unsigned fields: decode the rows before");
  const In index = r.value();
  const Int begin = r.integer(), end = r.integer();
  const In scale = r.value(), zero_point = r.value();
  const int axis = r.whole(), out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> table = source.in(f);
    const uint8_t* packed = table.checked();
    const int64_t from = f.at(begin), to = f.at(end);
    const int64_t count = f.expect(index, "index", DType::i32, 1).shape[0];
    check(0 <= from && from <= to && to <= count, "begin and end must be a range of the index");
    f.check_below(index, table.rows(), "index", "packed");
    const int64_t length = scale_length(axis, table.rows(), table.num_cols);
    const GatherArgs a{packed,
                       f[index].as<int32_t>() + from,
                       data<float>(f.flat(scale, "scale", length), "scale", {length}),
                       data<float>(f.flat(zero_point, "zero_point", length), "scale", {length}),
                       f.make(out, DType::f32, {to - from, table.num_cols}).as<float>(),
                       table.num_cols,
                       axis,
                       table.bits};
    run_gather(a, to - from, f.threads);
  });
}

StepPtr quantize_pack(Reader& r) {
  const In x = r.value(), scale = r.value(), zero_point = r.value();
  const int axis = r.whole(), bits = r.bits();
  const In row_factor = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0], cols = from.shape[1];
    const int64_t length = scale_length(axis, rows, cols);
    QuantizeArgs a{};
    a.x = from.as<float>();
    a.scale = f.flat(scale, "scale", length).value->as<float>();
    a.zero_point = f.flat(zero_point, "zero_point", length).value->as<float>();
    if (row_factor) a.row_factor = data<float>(f.ref(row_factor), "row_factor", {rows});
    a.packed = f.make(out, DType::u8, {rows, packed_row_bytes(cols, bits)}).as<uint8_t>();
    a.num_cols = cols;
    a.axis = axis;
    a.bits = bits;
    run_quantize(a, rows, f.threads);
  });
}

StepPtr pack_own(Reader& r) {
  const In x = r.value();
  const int bits = r.bits();
  const bool with_sign = r.flag();
  const int packed = r.out(), scale = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0], cols = from.shape[1];
    Value& to = f.make(packed, DType::u8, {rows, packed_row_bytes(cols, bits)});
    Value& scales = f.make(scale, DType::f32, {rows});
    pack_own_rows(from.as<float>(), rows, cols, bits, with_sign,
                  {to.as<uint8_t>(), scales.as<float>()}, f.threads);
  });
}

StepPtr check_finite_step(Reader& r) {
  const In x = r.value();
  return step([=](Frame& f) {
    if (f[x].dtype != DType::f32) wrong_array(f[x], "x", DType::f32, {});
    const std::string name = f.program.input_of[static_cast<size_t>(x.value)] >= 0
                                 ? f.program.name_of(x.value)
                                 : "the feature matrix";
    check_finite(f[x], name.c_str(), f.threads);
  });
}

}  // namespace

void pack_own_rows(const float* x, int64_t rows, int64_t cols, int bits, bool with_sign,
                   const OwnRows& to, int threads) {
  const Kernels& k = kernels();
  std::atomic<bool> good{true};
  split_rows(rows, cols, threads, [&](int64_t begin, int64_t end) {
    constexpr int64_t kRows = 64;
    float extents[kRows];
    for (int64_t row = begin; row < end; row += kRows) {
      const int64_t count = std::min(kRows, end - row);
      ScanArgs a{};
      a.x = x + row * cols;
      a.extent = extents;
      a.packed = to.packed + row * packed_row_bytes(cols, bits);
      a.scale = to.scale + row;
      a.num_cols = cols;
      a.min_scale = kMinScale;
      a.bits = bits;
      a.symmetric = with_sign;
      ScanFlags flags;
      k.scan(a, 0, count, nullptr, nullptr, nullptr, 0, &flags);
      if (!flags.finite || (flags.negative && !with_sign))
        good.store(false, std::memory_order_relaxed);
    }
  });
  if (good.load()) return;
  if (with_sign) return;  // scales of NaN and infinity as torch has them
  pack_positive_rows(x, rows, cols, bits, to, threads);
}

void pack_positive_rows(const float* x, int64_t rows, int64_t cols, int bits, const OwnRows& to,
                        int threads) {
  split_rows(rows, cols, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* row = x + r * cols;
      // As torch's amax and clamp_min: NaN stays.
      float top = 0.0f;
      bool nan = false;
      for (int64_t c = 0; c < cols; ++c) {
        nan |= row[c] != row[c];
        top = row[c] > top ? row[c] : top;
      }
      to.scale[r] = unsigned_scale(nan ? NAN : top, bits);
    }
  });
  const std::vector<float> zeros(static_cast<size_t>(rows), 0.0f);
  QuantizeArgs a{};
  a.x = x;
  a.scale = to.scale;
  a.zero_point = zeros.data();
  a.packed = to.packed;
  a.num_cols = cols;
  a.axis = 0;
  a.bits = bits;
  run_quantize(a, rows, threads);
}

Operations row_operations() {
  return {{"pack", pack},
          {"unpack", unpack},
          {"gather_rows", gather_rows},
          {"quantize_pack", quantize_pack},
          {"pack_own", pack_own},
          {"check_finite", check_finite_step}};
}

}  // namespace nodebits::plan
