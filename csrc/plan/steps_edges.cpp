// Weights of edges (nodebits/nn/quantizers/edge.py, nn/forms/edges.py).
#include <algorithm>
#include <cmath>

#include "plan/finite.h"
#include "plan/own_scale.h"
#include "plan/program.h"

namespace nodebits::plan {
namespace {

StepPtr in_order(Reader& r) {
  const In weight = r.value(), perm = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f[weight];
    // PyG takes [E, 1] too.
    const bool column = from.ndim == 2 && from.shape[1] == 1;
    if (from.dtype != DType::f32 || (from.ndim != 1 && !column))
      wrong_array(from, "edge_weight", DType::f32, {from.count()});
    const int64_t edges = from.shape[0];
    check_finite(from, "edge_weight", f.threads);
    const float* w = from.as<float>();
    float* to = f.make(out, DType::f32, {edges}).as<float>();
    if (!perm) {
      std::copy(w, w + edges, to);
      return;
    }
    if (f.expect(perm, "perm", DType::i64, 1).shape[0] != edges)
      throw ShapeError("edge_weight has shape " + shape_text(from) +
                       ": expected one value for each of the " + std::to_string(f[perm].shape[0]) +
                       " edges");
    f.check_below(perm, edges, "perm", "edge_weight");
    const int64_t* p = f[perm].as<int64_t>();
    for (int64_t e = 0; e < edges; ++e) to[e] = w[p[e]];
  });
}

// Codes of both signs lie around a zero point; which weights there are decides which step.
template <bool kSigned>
StepPtr edge_codes(Reader& r) {
  const In weight = r.value(), indptr = r.value();
  const int bits = r.bits();
  // Of products with scales of rows, some of which may be 0, the first factors tell the signs.
  const In signs = kSigned ? r.optional() : In{};
  const int codes = r.out(), row_sum = r.out(), scale = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(weight, "weight", DType::f32, 1);
    const int64_t edges = from.shape[0];
    f.check_rows(indptr, edges);
    const int64_t rows = f[indptr].shape[0] - 1;
    const float* w = from.as<float>();
    const Value& told = signs ? f.expect(signs, "signs", DType::f32, 1) : from;
    const float *first = told.as<float>(), *last = first + told.count();
    if ((std::find_if(first, last, [](float v) { return v < 0.0f; }) != last) != kSigned)
      throw PlanError("Refused", kSigned ? "no edge weight is negative: codes of one sign are made "
                                           "by the module"
                                         : "an edge weight is negative: codes of both signs are "
                                           "made by the module");
    const int64_t* p = f[indptr].as<int64_t>();
    uint8_t* to = f.make(codes, DType::u8, {edges, 1}).as<uint8_t>();
    float* sums = f.make(row_sum, DType::f32, {rows, 1}).as<float>();
    float* scales = f.make(scale, DType::f32, {rows, 1}).as<float>();
    const float zero = kSigned ? static_cast<float>(1 << (bits - 1)) : 0.0f;
    const float qmax = static_cast<float>((1 << bits) - 1);
    for (int64_t row = 0; row < rows; ++row) {
      float extent = 0.0f, sum = 0.0f;
      for (int64_t e = p[row]; e < p[row + 1]; ++e) extent = std::max(extent, std::fabs(w[e]));
      scales[row] = kSigned ? symmetric_scale(extent, bits) : unsigned_scale(extent, bits);
      for (int64_t e = p[row]; e < p[row + 1]; ++e) {
        float v = w[e] / scales[row] + zero;
        v = v > 0.0f ? v : 0.0f;
        v = v < qmax ? v : qmax;
        v = (v + 8388608.0f) - 8388608.0f;  // half to even
        to[e] = static_cast<uint8_t>(v);
        sum += v - zero;
      }
      sums[row] = sum;
    }
  });
}

// Sums by codes around a zero point, of those by codes and of those without weights.
StepPtr centred(Reader& r) {
  const In acc = r.value(), plain = r.value();
  const int zero_point = r.whole(), out = r.out();
  return step([=](Frame& f) {
    const Value& a = f.expect(acc, "acc", DType::i32, 2);
    const Value& b = f.expect(plain, "plain", DType::i32, 2);
    if (a.shape[0] != b.shape[0] || a.shape[1] != b.shape[1])
      wrong_array(b, "plain", DType::i32, {a.shape[0], a.shape[1]});
    const int32_t *x = a.as<int32_t>(), *y = b.as<int32_t>();
    int32_t* to = f.make(out, DType::i32, {a.shape[0], a.shape[1]}).as<int32_t>();
    for (int64_t i = 0, n = a.count(); i < n; ++i)
      // Unsigned, where what a file says may overflow.
      to[i] = static_cast<int32_t>(static_cast<uint32_t>(x[i]) -
                                   static_cast<uint32_t>(zero_point) * static_cast<uint32_t>(y[i]));
  });
}

}  // namespace

Operations edge_operations() {
  return {{"in_order", in_order},
          {"edge_codes", edge_codes<false>},
          {"signed_edge_codes", edge_codes<true>},
          {"centred", centred}};
}

}  // namespace nodebits::plan
