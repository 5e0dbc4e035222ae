// Torch's functions whose last bit its vector library decides: here they are computed in float64
// and rounded once. Within nodebits torch itself runs them; elsewhere these do.
#include <cmath>
#include <numbers>

#include "plan/program.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

constexpr int64_t kWork = 16;  // of such a function, in elementary steps

const Value& floats(Frame& f, In in) {
  const Value& v = f[in];
  if (v.dtype != DType::f32) wrong_array(v, "x", DType::f32, {v.count()});
  return v;
}

template <double (*kFunction)(double)>
StepPtr rounded(Reader& r) {
  const In x = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    const float* a = from.as<float>();
    float* to = f.make(out, DType::f32, from.ndim, from.shape).template as<float>();
    split_rows(from.count(), kWork, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        to[i] = static_cast<float>(kFunction(static_cast<double>(a[i])));
    });
  });
}

double exponential(double x) { return std::exp(x); }
double logarithm(double x) { return std::log(x); }
double hyperbolic(double x) { return std::tanh(x); }
double sine(double x) { return std::sin(x); }
double cosine(double x) { return std::cos(x); }
double exponential_less_one(double x) { return std::expm1(x); }
double logarithm_of_one_more(double x) { return std::log1p(x); }
double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double silu(double x) { return x / (1.0 + std::exp(-x)); }
double elu(double x) { return x > 0.0 ? x : std::expm1(x); }
double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2)); }
double softplus(double x) { return x > 20.0 ? x : std::log1p(std::exp(x)); }

int dimension(int64_t dim, const Value& v) {
  const int64_t d = dim < 0 ? dim + v.ndim : dim;
  if (d < 0 || d >= v.ndim)
    throw ShapeError("dimension " + std::to_string(dim) + " of " + shape_text(v));
  return static_cast<int>(d);
}

// Calls f(first, count, stride) with every line of values along a dimension.
template <class F>
void each_line(const Value& v, int d, int threads, const F& f) {
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < v.ndim; ++i) {
    if (i < d) outer *= v.shape[i];
    if (i > d) inner *= v.shape[i];
  }
  const int64_t n = v.shape[d];
  split_rows(outer * inner, n * kWork, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i / inner * n * inner + i % inner, n, inner);
  });
}

template <bool kLog>
StepPtr softmax(Reader& r) {
  const In x = r.value();
  const int dim = r.whole(), out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    const float* a = from.as<float>();
    float* to = f.make(out, DType::f32, from.ndim, from.shape).template as<float>();
    each_line(from, dimension(dim, from), f.threads, [&](int64_t first, int64_t n, int64_t stride) {
      double top = -INFINITY, sum = 0.0;
      for (int64_t i = 0; i < n; ++i)
        top = std::fmax(top, static_cast<double>(a[first + i * stride]));
      for (int64_t i = 0; i < n; ++i)
        sum += std::exp(static_cast<double>(a[first + i * stride]) - top);
      const double log_sum = std::log(sum);
      for (int64_t i = 0; i < n; ++i) {
        const double v = static_cast<double>(a[first + i * stride]) - top;
        to[first + i * stride] = static_cast<float>(kLog ? v - log_sum : std::exp(v) / sum);
      }
    });
  });
}

// Values of x by the place in the result to which dimensions are reduced.
struct Reduced {
  int ndim = 0;
  int64_t shape[kMostDims];
  int64_t each = 1;  // how many values a result has
  int64_t count = 0;
  bool trailing = true;        // the values of a result lie one behind the other
  std::vector<int64_t> place;  // where they do not

  // Calls f(i, place) with every value, in order.
  template <class F>
  void every(const F& f) const {
    if (!trailing) {
      for (int64_t i = 0; i < count; ++i) f(i, place[static_cast<size_t>(i)]);
      return;
    }
    for (int64_t i = 0, at = 0; i < count; ++at) {
      for (const int64_t end = i + each; i < end; ++i) f(i, at);
    }
  }
};

Reduced reduced(const Value& v, const std::vector<int64_t>& dims, bool keep) {
  bool gone[kMostDims] = {};
  for (int64_t d : dims) gone[dimension(d, v)] = true;
  Reduced made;
  made.count = v.count();
  int64_t stride[kMostDims] = {}, step = 1;
  for (int d = v.ndim - 1; d >= 0; --d) {
    if (gone[d]) {
      made.each *= v.shape[d];
      for (int behind = d + 1; behind < v.ndim; ++behind) made.trailing &= gone[behind];
    } else {
      stride[d] = step;
      step *= v.shape[d];
    }
  }
  for (int d = 0; d < v.ndim; ++d) {
    if (!gone[d] || keep) made.shape[made.ndim++] = gone[d] ? 1 : v.shape[d];
  }
  if (made.trailing) return made;
  int64_t index[kMostDims] = {}, at = 0;
  made.place.resize(static_cast<size_t>(v.count()));
  for (int64_t& place : made.place) {
    place = at;
    for (int d = v.ndim - 1; d >= 0; --d) {
      at += stride[d];
      if (++index[d] < v.shape[d]) break;
      at -= stride[d] * v.shape[d];
      index[d] = 0;
    }
  }
  return made;
}

template <class F>
std::vector<double> sums(const Value& v, const Reduced& by, int64_t results, const F& each) {
  std::vector<double> made(static_cast<size_t>(results), 0.0);
  const float* a = v.as<float>();
  double* to = made.data();
  by.every([&](int64_t i, int64_t at) { to[at] += each(static_cast<double>(a[i])); });
  return made;
}

double itself(double v) { return v; }

template <bool kMean>
StepPtr sum(Reader& r) {
  const In x = r.value();
  const std::vector<int64_t> dims = r.wholes();
  const bool keep = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    const Reduced by = reduced(from, dims, keep);
    Value& to = f.make(out, DType::f32, by.ndim, by.shape);
    const int64_t n = to.count();
    const std::vector<double> made = sums(from, by, n, itself);
    for (int64_t i = 0; i < n; ++i) {
      const double s = made[static_cast<size_t>(i)];
      to.as<float>()[i] = static_cast<float>(kMean ? s / static_cast<double>(by.each) : s);
    }
  });
}

template <bool kRoot>
StepPtr variance(Reader& r) {
  const In x = r.value();
  const std::vector<int64_t> dims = r.wholes();
  const Number correction = r.number();
  const bool keep = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    const Reduced by = reduced(from, dims, keep);
    Value& to = f.make(out, DType::f32, by.ndim, by.shape);
    const int64_t n = to.count();
    const std::vector<double> total = sums(from, by, n, itself);
    std::vector<double> squares(static_cast<size_t>(n), 0.0);
    const float* a = from.as<float>();
    by.every([&](int64_t i, int64_t place) {
      const size_t at = static_cast<size_t>(place);
      const double d = static_cast<double>(a[i]) - total[at] / static_cast<double>(by.each);
      squares[at] += d * d;
    });
    const double left = std::fmax(0.0, static_cast<double>(by.each) - f.at(correction));
    for (int64_t i = 0; i < n; ++i) {
      const double v = squares[static_cast<size_t>(i)] / left;
      to.as<float>()[i] = static_cast<float>(kRoot ? std::sqrt(v) : v);
    }
  });
}

// The root of the sum of squares.
StepPtr norm(Reader& r) {
  const In x = r.value();
  const std::vector<int64_t> dims = r.wholes();
  const bool keep = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    const Reduced by = reduced(from, dims, keep);
    Value& to = f.make(out, DType::f32, by.ndim, by.shape);
    const std::vector<double> made = sums(from, by, to.count(), [](double v) { return v * v; });
    for (size_t i = 0; i < made.size(); ++i)
      to.as<float>()[i] = static_cast<float>(std::sqrt(made[i]));
  });
}

StepPtr layer_norm(Reader& r) {
  const In x = r.value();
  const std::vector<Int> shape = r.integers();
  const In weight = r.optional(), bias = r.optional();
  const Number eps = r.number();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = floats(f, x);
    int64_t n = 1;
    const size_t dims = shape.size();
    for (size_t i = 0; i < dims; ++i) {
      const int64_t length = f.at(shape[i]);
      const int d = from.ndim - static_cast<int>(dims - i);
      if (d < 0 || from.shape[d] != length)
        throw ShapeError("layer_norm of other lengths than " + shape_text(from));
      n *= length;
    }
    const float* w = nullptr;
    const float* b = nullptr;
    if (weight) w = f.flat(weight, "weight", n).value->as<float>();
    if (bias) b = f.flat(bias, "bias", n).value->as<float>();
    const double least = f.at(eps);
    const float* a = from.as<float>();
    float* to = f.make(out, DType::f32, from.ndim, from.shape).as<float>();
    if (n == 0) return;
    split_rows(from.count() / n, 2 * n, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* v = a + row * n;
        double total = 0.0, squares = 0.0;
        for (int64_t i = 0; i < n; ++i) total += static_cast<double>(v[i]);
        const double mean = total / static_cast<double>(n);
        for (int64_t i = 0; i < n; ++i) {
          const double d = static_cast<double>(v[i]) - mean;
          squares += d * d;
        }
        const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + least);
        for (int64_t i = 0; i < n; ++i) {
          const double y = (static_cast<double>(v[i]) - mean) * scale;
          to[row * n + i] =
              static_cast<float>(y * (w == nullptr ? 1.0 : static_cast<double>(w[i])) +
                                 (b == nullptr ? 0.0 : static_cast<double>(b[i])));
        }
      }
    });
  });
}

}  // namespace

Operations approximate_operations() {
  return {{"exp", rounded<exponential>},
          {"log", rounded<logarithm>},
          {"tanh", rounded<hyperbolic>},
          {"sigmoid", rounded<sigmoid>},
          {"elu", rounded<elu>},
          {"gelu", rounded<gelu>},
          {"silu", rounded<silu>},
          {"softplus", rounded<softplus>},
          {"sin", rounded<sine>},
          {"cos", rounded<cosine>},
          {"expm1", rounded<exponential_less_one>},
          {"log1p", rounded<logarithm_of_one_more>},
          {"softmax", softmax<false>},
          {"log_softmax", softmax<true>},
          {"sum", sum<false>},
          {"mean", sum<true>},
          {"var", variance<false>},
          {"std", variance<true>},
          {"norm", norm},
          {"layer_norm", layer_norm}};
}

}  // namespace nodebits::plan
