// Rows of one width: packing, quantizing, reading.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "contract/trim.h"
#include "plan/finite.h"
#include "plan/own_scale.h"
#include "plan/packing.h"
#include "plan/records.h"
#include "run/dispatch.h"
#include "run/drivers.h"
#include "run/fused.h"
#include "run/memory.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

void refuse_rows(Frame& f, In x) {
  const std::string name = f.program.input_of[static_cast<size_t>(x.value)] >= 0
                               ? f.program.name_of(x.value)
                               : "the feature matrix";
  check_finite(f[x], name.c_str(), f.threads);
}

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

// Rows at a time: what one reads, the others find in the cache next to the core. False where a
// value is not finite and `checks` asks for it.
bool run_quantize_all(const QuantizeArgs* all, size_t count, int64_t rows, bool checks,
                      int threads) {
  constexpr int64_t kValues = 8192;
  const Kernels& k = kernels();
  const int64_t cols = all[0].num_cols;
  const int64_t some = std::max<int64_t>(1, kValues / std::max<int64_t>(cols, 1));
  for (size_t i = 0; i < count; ++i)
    prefer_huge_pages(all[i].packed,
                      static_cast<size_t>(rows * packed_row_bytes(cols, all[i].bits)));
  std::atomic<bool> finite{true};
  split_rows(rows, cols * static_cast<int64_t>(count), threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += some) {
      const int64_t stop = std::min(end, row + some);
      if (checks && !all_finite(all[0].x + row * cols, (stop - row) * cols, 1))
        return finite.store(false, std::memory_order_relaxed);
      for (size_t i = 0; i < count; ++i) k.quantize(all[i], row, stop);
    }
  });
  return finite.load();
}

// Packs float rows, and with them those that later steps pack of the same rows (join_packing).
struct PackStep final : Step {
  explicit PackStep(Reader& r)
      : x(r.value()),
        scale(r.value()),
        zero_point(r.value()),
        axis(r.whole()),
        bits(r.bits()),
        row_factor(r.optional()),
        out(r.out()) {
    by_rows = axis != 0 && !row_factor;
    refuses = true;
  }

  void run(Frame& f) const override {
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0];
    std::vector<QuantizeArgs> all{args(f)};
    for (const PackStep* one : others) {
      if (one->ready(f)) all.push_back(one->args(f));
    }
    if (!run_quantize_all(all.data(), all.size(), rows, checks, f.threads)) refuse_rows(f, x);
  }

  QuantizeArgs args(Frame& f) const {
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
    return a;
  }

  // Whether all that it reads is there, and nobody made its result.
  bool ready(const Frame& f) const {
    return !f[In{out}].set &&
           std::all_of(ins.begin(), ins.end(), [&](int in) { return f[In{in}].set; });
  }

  In x, scale, zero_point;
  int axis, bits;
  In row_factor;
  int out;
  std::vector<const PackStep*> others;
  bool checks = false;  // refuses what is not finite, on the way
};

StepPtr quantize_pack(Reader& r) { return std::make_unique<PackStep>(r); }

StepPtr pack_own(Reader& r) { return std::make_unique<OwnPackStep>(r); }

struct CheckStep final : Step {
  explicit CheckStep(Reader& r) : x(r.value()) { by_rows = refuses = true; }

  void run(Frame& f) const override {
    if (f[x].dtype != DType::f32) wrong_array(f[x], "x", DType::f32, {});
    if (!left) refuse_rows(f, x);
  }

  In x;
  bool left = false;  // to the step that packs the rows
};

StepPtr check_finite_step(Reader& r) { return std::make_unique<CheckStep>(r); }

// How often a value is read: by steps, by their sizes, as a result of the plan.
int reads(const Program& p, int value) {
  int found = static_cast<int>(std::count(p.outputs.begin(), p.outputs.end(), value));
  for (const StepPtr& step : p.steps) {
    found += static_cast<int>(std::count(step->ins.begin(), step->ins.end(), value));
    for (const Int& size : step->sizes) found += size.value == value ? 1 : 0;
  }
  return found;
}

void join_own(const Program& p) {
  for (const StepPtr& step : p.steps) {
    const auto* packs = dynamic_cast<const OwnPackStep*>(step.get());
    if (packs == nullptr || reads(p, packs->x.value) != 1) continue;
    for (const StepPtr& other : p.steps) {
      auto* rows = dynamic_cast<RowsStep*>(other.get());
      if (rows == nullptr || rows->floats != packs->x.value) continue;
      rows->reader = packs;
      step->by_rows = false;
    }
  }
}

}  // namespace

OwnPackStep::OwnPackStep(Reader& r)
    : x(r.value()),
      codes{r.bits(), r.flag(), !r.at_end() && r.flag()},
      packed(r.out()),
      scale(r.out()) {
  by_rows = true;
}

void OwnPackStep::run(Frame& f) const {
  const Value& from = f.expect(x, "x", DType::f32, 2);
  const int64_t rows = from.shape[0], cols = from.shape[1];
  Value& to = f.make(packed, DType::u8, {rows, packed_row_bytes(cols, codes.bits)});
  Value& scales = f.make(scale, DType::f32, {rows});
  pack_own_rows(from.as<float>(), rows, cols, codes, {to.as<uint8_t>(), scales.as<float>()},
                f.threads);
}

void run_packed_rows(Frame& f, const OwnPackStep& reader, const SpmmArgs& sum, int64_t rows,
                     int64_t table_rows, const FusedArgs& a) {
  const int64_t row_bytes = packed_row_bytes(a.num_cols, reader.codes.bits);
  uint8_t* packed = f.make(reader.packed, DType::u8, {rows, row_bytes}).as<uint8_t>();
  float* scale = f.make(reader.scale, DType::f32, {rows}).as<float>();
  run_fused_rows(sum, rows, table_rows, a, f.threads,
                 [&](int64_t begin, int64_t end, const float* x) {
                   pack_own_rows(x, end - begin, a.num_cols, reader.codes,
                                 {packed + begin * row_bytes, scale + begin}, 1);
                 });
}

void join_packing(const Program& p) {
  join_own(p);
  std::vector<CheckStep*> checked(p.values.size(), nullptr);
  std::vector<PackStep*> first(p.values.size(), nullptr);
  std::vector<int> made(p.values.size(), -1);  // by which step; constants and inputs by none
  for (const StepPtr& step : p.steps) {
    for (int out : step->outs) made[static_cast<size_t>(out)] = step->number;
  }
  for (const StepPtr& step : p.steps) {
    auto* packs = dynamic_cast<PackStep*>(step.get());
    if (packs != nullptr) {
      const auto x = static_cast<size_t>(packs->x.value);
      if (first[x] == nullptr) {
        first[x] = packs;
        if (checked[x] != nullptr) packs->checks = checked[x]->left = true;
      } else if (std::all_of(packs->ins.begin(), packs->ins.end(), [&](int in) {
                   return made[static_cast<size_t>(in)] < first[x]->number;
                 })) {
        first[x]->others.push_back(packs);
        first[x]->by_rows = packs->by_rows = false;  // what one makes for others is not cut
      }
    }
    // Whoever else reads the rows finds them checked.
    for (int in : step->ins) checked[static_cast<size_t>(in)] = nullptr;
    if (auto* check = dynamic_cast<CheckStep*>(step.get()))
      checked[static_cast<size_t>(check->x.value)] = check;
  }
}

void pack_own_rows(const float* x, int64_t rows, int64_t cols, const OwnCodes& codes,
                   const OwnRows& to, int threads) {
  const Kernels& k = kernels();
  const auto [bits, with_sign, trim] = codes;
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
      a.trim = trim;
      ScanFlags flags;
      k.scan(a, 0, count, nullptr, nullptr, nullptr, 0, &flags);
      if (!flags.finite || (flags.negative && !with_sign))
        good.store(false, std::memory_order_relaxed);
    }
  });
  if (good.load()) return;
  if (with_sign) return;  // scales of NaN and infinity as torch has them
  pack_positive_rows(x, rows, cols, codes, to, threads);
}

void pack_positive_rows(const float* x, int64_t rows, int64_t cols, const OwnCodes& codes,
                        const OwnRows& to, int threads) {
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
      if (nan) top = NAN;
      if (codes.trim) top = trimmed_extent(row, cols, top, own_levels(codes.bits, false), false);
      to.scale[r] = unsigned_scale(top, codes.bits);
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
  a.bits = codes.bits;
  run_quantize(a, rows, threads);
}

Operations row_operations() {
  return {{"pack", pack},
          {"unpack", unpack, false, false, true},
          {"gather_rows", gather_rows},
          {"quantize_pack", quantize_pack},
          {"pack_own", pack_own},
          {"check_finite", check_finite_step}};
}

}  // namespace nodebits::plan
