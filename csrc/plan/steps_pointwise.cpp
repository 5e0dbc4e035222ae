// Torch's functions of single values whose results IEEE 754 fixes. A result may lie where an
// operand of as many entries does (Workspace::fresh): loops read an entry before they write it, and
// no other.
#include <cmath>

#include "plan/broadcast.h"

namespace nodebits::plan {
namespace {

const Value& floats(Frame& f, In in) {
  const Value& v = f[in];
  if (v.dtype != DType::f32)
    throw ShapeError("an operand is " + std::string(name_of(v.dtype)) + " " + shape_text(v) +
                     ", expected float32");
  return v;
}

// `function` makes what computes an entry from numbers of the run.
template <class F>
StepPtr unary_step(Reader& r, In x, F function) {
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    const float* a = from.as<float>();
    float* to = f.make(out, DType::f32, from.ndim, from.shape).template as<float>();
    const auto each = function(f);
    split_rows(from.count(), 1, f.threads, [&](int64_t begin, int64_t end) {
      // A copy: of numbers behind a reference the compiler could not tell that no store is one.
      const auto own = each;
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) to[i] = own(a[i]);
    });
  });
}

template <float (*kFunction)(float)>
StepPtr unary(Reader& r) {
  const In from = r.value();
  return unary_step(r, from, [](Frame&) { return [](float x) { return kFunction(x); }; });
}

inline float relu(float x) { return x < 0.0f ? 0.0f : x; }
inline float negative(float x) { return -x; }
inline float magnitude(float x) { return std::fabs(x); }
inline float reciprocal(float x) { return 1.0f / x; }
inline float root(float x) { return std::sqrt(x); }
inline float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }
inline float inverse(float x) { return x > 0.0f ? 1.0f / x : 0.0f; }

StepPtr clamp_between(Reader& r, bool with_most) {
  const In x = r.value();
  const bool has_least = !r.at_null();
  const Number least = has_least ? r.number() : (r.optional(), Number{});
  const bool has_most = with_most && !r.at_null();
  const Number most = has_most ? r.number() : Number{};
  if (with_most && !has_most) r.optional();
  return unary_step(r, x, [=](Frame& f) {
    const float low = has_least ? static_cast<float>(f.at(least)) : -INFINITY;
    const float high = has_most ? static_cast<float>(f.at(most)) : INFINITY;
    return [=](float entry) {
      const float v = entry < low ? low : entry;
      return v > high ? high : v;
    };
  });
}

StepPtr clamp_min(Reader& r) { return clamp_between(r, false); }
StepPtr clamp(Reader& r) { return clamp_between(r, true); }

StepPtr leaky_relu(Reader& r) {
  const In x = r.value();
  const Number slope = r.number();
  return unary_step(r, x, [=](Frame& f) {
    const float s = static_cast<float>(f.at(slope));
    return [=](float entry) { return entry > 0.0f ? entry : entry * s; };
  });
}

// Two operands, either of which may be a number.
template <class To, class F>
StepPtr binary_step(Reader& r, DType dtype, F function) {
  const Operand left(r), right(r);
  if (left.is_number && right.is_number) r.fail("one operand at least must be a value");
  const int out = r.out();
  return step([=](Frame& f) {
    const Value* const operands[2] = {left.is_number ? nullptr : &floats(f, left.value),
                                      right.is_number ? nullptr : &floats(f, right.value)};
    const float numbers[2] = {left.is_number ? static_cast<float>(f.at(left.number)) : 0.0f,
                              right.is_number ? static_cast<float>(f.at(right.number)) : 0.0f};
    const Walk<2> walk(operands);
    const float* a = operands[0] == nullptr ? &numbers[0] : operands[0]->as<float>();
    const float* b = operands[1] == nullptr ? &numbers[1] : operands[1]->as<float>();
    To* to = f.make(out, dtype, walk.ndim, walk.shape).template as<To>();
    walk.each(f.threads, [&](int64_t at, int64_t n, const int64_t* from, const int64_t* stride) {
      To* here = to + at;
      const float *x = a + from[0], *y = b + from[1];
      if (stride[0] != 0 && stride[1] != 0) {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; ++i) here[i] = function(x[i], y[i]);
      } else if (stride[0] != 0) {
        const float v = *y;
#pragma GCC ivdep
        for (int64_t i = 0; i < n; ++i) here[i] = function(x[i], v);
      } else if (stride[1] != 0) {
        const float v = *x;
#pragma GCC ivdep
        for (int64_t i = 0; i < n; ++i) here[i] = function(v, y[i]);
      } else {
        std::fill_n(here, n, function(*x, *y));
      }
    });
  });
}

template <float (*kFunction)(float, float)>
StepPtr binary(Reader& r) {
  return binary_step<float>(r, DType::f32, [](float a, float b) { return kFunction(a, b); });
}

template <bool (*kFunction)(float, float)>
StepPtr comparison(Reader& r) {
  return binary_step<bool>(r, DType::b8, [](float a, float b) { return kFunction(a, b); });
}

inline float add(float a, float b) { return a + b; }
inline float sub(float a, float b) { return a - b; }
inline float mul(float a, float b) { return a * b; }
inline float div(float a, float b) { return a / b; }
// NaN of either side stays.
inline float maximum(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }
inline float minimum(float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; }
inline bool gt(float a, float b) { return a > b; }
inline bool lt(float a, float b) { return a < b; }
inline bool ge(float a, float b) { return a >= b; }
inline bool le(float a, float b) { return a <= b; }
inline bool eq(float a, float b) { return a == b; }
inline bool ne(float a, float b) { return a != b; }

StepPtr where(Reader& r) {
  const In condition = r.value();
  const Operand left(r), right(r);
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& c = f[condition];
    if (c.dtype != DType::b8) wrong_array(c, "condition", DType::b8, {});
    const Value* const operands[3] = {&c, left.is_number ? nullptr : &floats(f, left.value),
                                      right.is_number ? nullptr : &floats(f, right.value)};
    const float numbers[2] = {left.is_number ? static_cast<float>(f.at(left.number)) : 0.0f,
                              right.is_number ? static_cast<float>(f.at(right.number)) : 0.0f};
    const Walk<3> walk(operands);
    const uint8_t* bits = c.as<uint8_t>();
    const float* a = operands[1] == nullptr ? &numbers[0] : operands[1]->as<float>();
    const float* b = operands[2] == nullptr ? &numbers[1] : operands[2]->as<float>();
    float* to = f.make(out, DType::f32, walk.ndim, walk.shape).as<float>();
    walk.each(f.threads, [&](int64_t at, int64_t n, const int64_t* from, const int64_t* stride) {
      for (int64_t i = 0; i < n; ++i) {
        to[at + i] = bits[from[0] + i * stride[0]] != 0 ? a[from[1] + i * stride[1]]
                                                        : b[from[2] + i * stride[2]];
      }
    });
  });
}

StepPtr logical_not(Reader& r) {
  const In x = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f[x];
    if (from.dtype != DType::b8) wrong_array(from, "an operand", DType::b8, {});
    uint8_t* to = f.make(out, DType::b8, from.ndim, from.shape).as<uint8_t>();
    const uint8_t* a = from.as<uint8_t>();
    for (int64_t i = 0; i < from.count(); ++i) to[i] = a[i] == 0;
  });
}

// Whole numbers times a factor, or the factor in the place of each: what the codes of a sparse row
// are to its sums.
template <bool kTimes>
StepPtr factor_of(Reader& r) {
  const In x = r.value();
  const Int factor = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f[x];
    if (from.dtype != DType::i32) wrong_array(from, "an operand", DType::i32, {});
    const int32_t by = static_cast<int32_t>(f.at(factor));
    int32_t* to = f.make(out, DType::i32, from.ndim, from.shape).as<int32_t>();
    const int32_t* a = from.as<int32_t>();
    for (int64_t i = 0; i < from.count(); ++i)
      to[i] = kTimes ? static_cast<int32_t>(static_cast<uint32_t>(a[i]) * static_cast<uint32_t>(by))
                     : by;
  });
}

Operation by_entry(const char* name, StepPtr (*make)(Reader&)) { return {name, make, false, true}; }

}  // namespace

Operations pointwise_operations() {
  return {{"times", factor_of<true>},
          {"filled", factor_of<false>},
          by_entry("relu", unary<relu>),
          by_entry("neg", unary<negative>),
          by_entry("abs", unary<magnitude>),
          by_entry("reciprocal", unary<reciprocal>),
          by_entry("sqrt", unary<root>),
          {"root", unary<root>},
          by_entry("rsqrt", unary<reciprocal_root>),
          by_entry("inverse", unary<inverse>),
          by_entry("clamp_min", clamp_min),
          by_entry("clamp", clamp),
          by_entry("leaky_relu", leaky_relu),
          by_entry("add", binary<add>),
          by_entry("sub", binary<sub>),
          by_entry("mul", binary<mul>),
          by_entry("div", binary<div>),
          by_entry("maximum", binary<maximum>),
          by_entry("minimum", binary<minimum>),
          {"gt", comparison<gt>, false, false, true},
          {"lt", comparison<lt>, false, false, true},
          {"ge", comparison<ge>, false, false, true},
          {"le", comparison<le>, false, false, true},
          {"eq", comparison<eq>, false, false, true},
          {"ne", comparison<ne>, false, false, true},
          {"where", where, false, false, true},
          {"logical_not", logical_not, false, false, true}};
}

}  // namespace nodebits::plan
