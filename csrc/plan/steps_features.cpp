// The product of raw features, each of whose rows brings its own scale
// (nodebits/engine/formats/raw.py, sites/own.py).
#include <memory>
#include <mutex>

#include "plan/finite.h"
#include "plan/own_scale.h"
#include "plan/records.h"
#include "run/dispatch.h"
#include "run/features.h"

namespace nodebits::plan {
namespace {

// Up to this share of values that are not zero a sparse product is faster than a dense one.
constexpr double kSparseShare = 0.15;

// A constant weight as sparse products read it, from the first of them on.
class SparseTable {
 public:
  explicit SparseTable(const WeightArgs& weight) : weight_(weight) {}

  SparseWeight of_weight() const {
    std::call_once(made_, [this] {
      memory_ = std::make_unique<Buffer>(static_cast<size_t>(weight_.depth * weight_.num_out));
      make_sparse_table(weight_, memory_->memory);
    });
    return {memory_->memory, weight_.midrise, weight_.bits};
  }

 private:
  WeightArgs weight_;
  mutable std::once_flag made_;
  mutable std::unique_ptr<Buffer> memory_;
};

StepPtr feature_product(Reader& r) {
  const In x = r.value();
  const int bits = r.bits();
  const bool with_sign = r.flag();
  WeightArg weight;
  weight.packed = r.value();
  weight.bits = r.bits();
  weight.midrise = r.flag();
  if (const Value* v = r.constant(weight.packed); v != nullptr && weight.midrise && weight.bits > 7)
    r.fail("midrise weights have at most 7 bits");
  const In w_scale = r.value(), w_col_sum = r.value(), bias = r.optional();
  const SinkArg sink(r);
  const bool trim = !r.at_end() && r.flag();
  const int input = r.program.input_of[static_cast<size_t>(x.value)];
  // The depth is that of the input, where it says so.
  if (input >= 0) {
    const Input& about = r.program.inputs[static_cast<size_t>(input)];
    if (about.shape.size() == 2 && about.shape[1] >= 0) weight.bind(r, Int{about.shape[1], -1, 0});
  }
  std::shared_ptr<const SparseTable> table;
  if (weight.panels != nullptr && !with_sign)
    table = std::make_shared<SparseTable>(weight.panels->weight());
  return step([=](Frame& f) {
    const Kernels& k = kernels();
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0], depth = from.shape[1];
    const WeightArgs w = weight.in(f).args(depth);
    const int64_t cols = w.num_out;
    EpilogueOf<Ref> epilogue{f.flat(w_scale, "w_scale", cols), {}, {}, {}, {}};
    if (bias) epilogue.bias = f.flat(bias, "bias", cols);
    std::vector<float> room;
    FusedTerm term{epilogue_args(epilogue, rows, cols, &room), nullptr, nullptr};
    const float* col_sum = data<float>(f.flat(w_col_sum, "w_col_sum", cols), "w_col_sum", {cols});
    if (with_sign) {
      float* offset = f.scratch<float>(cols);
      const float half = static_cast<float>(1 << (bits - 1));
      for (int64_t c = 0; c < cols; ++c) offset[c] = col_sum[c] * half;
      term.epilogue.col_offset = offset;
    }
    float* scale = f.scratch<float>(rows);
    term.epilogue.row_scale = scale;
    Finish<Ref, OutRef> finish = sink.in(f, rows, cols);
    finish.args.terms = &term;
    finish.args.num_terms = 1;
    ScanArgs scan{};
    scan.x = from.as<float>();
    scan.scale = scale;
    scan.num_cols = depth;
    scan.min_scale = kMinScale;
    scan.bits = bits;
    scan.symmetric = with_sign;
    scan.trim = trim;
    FusedProduct product{GemmArgs{nullptr, weight.panel(k), depth, cols, bits}, w};
    SparseWeight sparse{};
    if (table != nullptr && sample_density(scan.x, rows, depth) <= kSparseShare)
      sparse = table->of_weight();
    const ScanFlags found =
        run_fused_gemm_features(product, sparse, scan, rows, finish.args, f.threads);
    if (!found.finite) check_finite(from, "the feature matrix", f.threads);
    if (with_sign || !found.negative) return;
    uint8_t* packed = f.scratch<uint8_t>(rows * packed_row_bytes(depth, bits));
    const OwnCodes codes{bits, with_sign, trim};
    pack_positive_rows(from.as<float>(), rows, depth, codes, {packed, scale}, f.threads);
    product.args.x = packed;
    run_fused_gemm({product}, rows, finish.args, f.threads);
  });
}

}  // namespace

Operations feature_operations() { return {{"feature_product", feature_product}}; }

}  // namespace nodebits::plan
