// Torch's functions that move values and do not change them.
#include <cstring>

#include "plan/program.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

int dimension(int64_t dim, int ndim) {
  const int64_t d = dim < 0 ? dim + ndim : dim;
  if (d < 0 || d >= ndim)
    throw ShapeError("dimension " + std::to_string(dim) + " of " + std::to_string(ndim));
  return static_cast<int>(d);
}

int64_t product(const int64_t* shape, int from, int to) {
  int64_t n = 1;
  for (int i = from; i < to; ++i) n *= shape[i];
  return n;
}

// Joins arrays along a dimension that all of them have; others are equal.
void join(Frame& f, const std::vector<In>& parts, int dim, int out, int ndim,
          const int64_t* shape) {
  const DType dtype = f[parts[0]].dtype;
  uint8_t* to = f.make(out, dtype, ndim, shape).as<uint8_t>();
  const int64_t bytes = bytes_of(dtype), outer = product(shape, 0, dim);
  const int64_t width = product(shape, dim, ndim) * bytes;
  int64_t column = 0;
  for (In part : parts) {
    const Value& v = f[part];
    const int64_t mine = outer == 0 ? 0 : v.count() * bytes / outer;
    const uint8_t* from = v.as<uint8_t>();
    if (mine > 0) {
      split_rows(outer, mine / 4 + 1, f.threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          std::memcpy(to + i * width + column, from + i * mine, static_cast<size_t>(mine));
      });
    }
    column += mine;
  }
}

void same_kind(Frame& f, const std::vector<In>& parts, int but) {
  const Value& first = f[parts[0]];
  for (In part : parts) {
    const Value& v = f[part];
    bool same = v.dtype == first.dtype && v.ndim == first.ndim;
    for (int i = 0; same && i < v.ndim; ++i) same = i == but || v.shape[i] == first.shape[i];
    if (!same)
      throw ShapeError("parts of different shapes: " + shape_text(first) + " and " + shape_text(v));
  }
}

StepPtr cat(Reader& r) {
  const std::vector<In> parts = r.values();
  if (parts.empty()) r.fail("nothing to join");
  const int dim = r.whole(), out = r.out();
  return step([=](Frame& f) {
    const Value& first = f[parts[0]];
    const int d = dimension(dim, first.ndim);
    same_kind(f, parts, d);
    int64_t shape[kMostDims];
    std::copy_n(first.shape, first.ndim, shape);
    shape[d] = 0;
    for (In part : parts) shape[d] += f[part].shape[d];
    join(f, parts, d, out, first.ndim, shape);
  });
}

StepPtr stack(Reader& r) {
  const std::vector<In> parts = r.values();
  if (parts.empty()) r.fail("nothing to stack");
  const int dim = r.whole(), out = r.out();
  return step([=](Frame& f) {
    const Value& first = f[parts[0]];
    const int d = dimension(dim, first.ndim + 1);
    if (first.ndim + 1 > kMostDims) throw ShapeError("too many dimensions");
    same_kind(f, parts, -1);
    int64_t shape[kMostDims];
    for (int i = 0; i <= first.ndim; ++i)
      shape[i] = i < d    ? first.shape[i]
                 : i == d ? static_cast<int64_t>(parts.size())
                          : first.shape[i - 1];
    join(f, parts, d, out, first.ndim + 1, shape);
  });
}

StepPtr slice(Reader& r) {
  const In x = r.value();
  const int dim = r.whole();
  const Int start = r.integer_or(0), stop = r.integer_or(INT64_MAX);
  const Int by = r.integer_or(1);
  const int out = r.out();
  StepPtr made = step([=](Frame& f) {
    const Value& v = f[x];
    const int d = dimension(dim, v.ndim);
    const int64_t n = v.shape[d], every = f.at(by);
    check(every > 0, "a slice goes in steps of at least 1");
    const auto clipped = [n](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + n : i, 0, n); };
    const int64_t from = clipped(f.at(start)), to = std::max(from, clipped(f.at(stop)));
    int64_t shape[kMostDims];
    std::copy_n(v.shape, v.ndim, shape);
    shape[d] = (to - from + every - 1) / every;
    uint8_t* result = f.make(out, v.dtype, v.ndim, shape).as<uint8_t>();
    const int64_t bytes = product(v.shape, d + 1, v.ndim) * bytes_of(v.dtype);
    const uint8_t* source = v.as<uint8_t>();
    const int64_t outer = product(v.shape, 0, d), count = shape[d];
    if (bytes == 0 || count == 0) return;
    split_rows(outer, count * bytes / 4 + 1, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const uint8_t* row = source + (i * n + from) * bytes;
        uint8_t* here = result + i * count * bytes;
        if (every == 1) {
          std::memcpy(here, row, static_cast<size_t>(count * bytes));
          continue;
        }
        for (int64_t k = 0; k < count; ++k)
          std::memcpy(here + k * bytes, row + k * every * bytes, static_cast<size_t>(bytes));
      }
    });
  });
  made->by_rows = dim == -1 || dim > 0;  // columns of every row
  return made;
}

StepPtr select(Reader& r) {
  const In x = r.value();
  const int dim = r.whole();
  const Int index = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f[x];
    const int d = dimension(dim, v.ndim);
    const int64_t n = v.shape[d], given = f.at(index), at = given < 0 ? given + n : given;
    if (at < 0 || at >= n)
      throw PlanError("NodeIndexError",
                      "index " + std::to_string(given) + " of a dimension of " + std::to_string(n));
    int64_t shape[kMostDims];
    for (int i = 0; i + 1 < v.ndim; ++i) shape[i] = v.shape[i < d ? i : i + 1];
    uint8_t* made = f.make(out, v.dtype, v.ndim - 1, shape).as<uint8_t>();
    const int64_t bytes = product(v.shape, d + 1, v.ndim) * bytes_of(v.dtype);
    const uint8_t* source = v.as<uint8_t>() + at * bytes;
    const int64_t outer = product(v.shape, 0, d);
    for (int64_t i = 0; i < outer && bytes > 0; ++i)
      std::memcpy(made + i * bytes, source + i * n * bytes, static_cast<size_t>(bytes));
  });
}

StepPtr view(Reader& r) {
  const In x = r.value();
  const std::vector<Int> lengths = r.integers();
  if (lengths.size() > kMostDims) r.fail("too many dimensions");
  const int out = r.out();
  r.alias(out, x);
  return step([=](Frame& f) {
    const Value& v = f[x];
    int64_t shape[kMostDims], known = 1;
    const int n = static_cast<int>(lengths.size());
    int open = -1;
    for (int i = 0; i < n; ++i) {
      shape[i] = f.at(lengths[static_cast<size_t>(i)]);
      if (shape[i] == -1) {
        if (open >= 0) throw ShapeError("two lengths of a view are open");
        open = i;
      } else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known)) {
        throw ShapeError("a view has a wrong length");
      }
    }
    const int64_t count = v.count();
    if (open >= 0) {
      shape[open] = known == 0 ? 0 : count / known;
      known *= shape[open];
    }
    if (known != count) throw ShapeError("a view of " + shape_text(v) + " has another size");
    f.alias(out, x, n, shape);
  });
}

StepPtr transpose(Reader& r) {
  const In x = r.value();
  const int first = r.whole(), second = r.whole(), out = r.out();
  return step([=](Frame& f) {
    const Value& v = f[x];
    int a = dimension(first, v.ndim), b = dimension(second, v.ndim);
    if (a > b) std::swap(a, b);
    int64_t shape[kMostDims];
    std::copy_n(v.shape, v.ndim, shape);
    std::swap(shape[a], shape[b]);
    uint8_t* to = f.make(out, v.dtype, v.ndim, shape).as<uint8_t>();
    const uint8_t* from = v.as<uint8_t>();
    if (a == b) {
      std::memcpy(to, from, static_cast<size_t>(v.count() * bytes_of(v.dtype)));
      return;
    }
    const int64_t outer = product(v.shape, 0, a), na = v.shape[a], nb = v.shape[b];
    const int64_t middle = product(v.shape, a + 1, b);
    const int64_t bytes = product(v.shape, b + 1, v.ndim) * bytes_of(v.dtype);
    if (bytes == 0) return;
    split_rows(outer * nb, middle * na * bytes / 4 + 1, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t o = i / nb, j = i % nb;
        uint8_t* here = to + i * middle * na * bytes;
        for (int64_t m = 0; m < middle; ++m) {
          for (int64_t k = 0; k < na; ++k) {
            std::memcpy(here, from + (((o * na + k) * middle + m) * nb + j) * bytes,
                        static_cast<size_t>(bytes));
            here += bytes;
          }
        }
      }
    });
  });
}

StepPtr clone(Reader& r) {
  const In x = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f[x];
    Value& to = f.make(out, v.dtype, v.ndim, v.shape);
    const size_t bytes = static_cast<size_t>(v.count() * bytes_of(v.dtype));
    if (bytes > 0) std::memcpy(to.data, v.data, bytes);
    to.below = v.below;
  });
}

template <class T>
void to_floats(const Value& v, float* to) {
  const T* from = v.as<T>();
  for (int64_t i = 0, n = v.count(); i < n; ++i) to[i] = static_cast<float>(from[i]);
}

StepPtr to_float(Reader& r) {
  const In x = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f[x];
    float* to = f.make(out, DType::f32, v.ndim, v.shape).as<float>();
    switch (v.dtype) {
      case DType::f32:
        return to_floats<float>(v, to);
      case DType::f64:
        return to_floats<double>(v, to);
      case DType::u8:
      case DType::b8:
        return to_floats<uint8_t>(v, to);
      case DType::i32:
        return to_floats<int32_t>(v, to);
      case DType::i64:
        return to_floats<int64_t>(v, to);
    }
  });
}

constexpr double kMostWhole = 9007199254740992.0;  // 2^53: a double holds what is below

StepPtr full(Reader& r) {
  const std::vector<Int> lengths = r.integers();
  if (lengths.size() > kMostDims) r.fail("too many dimensions");
  const Number number = r.number();
  const bool whole = !r.at_end();
  if (whole && r.text() != "int64") r.fail("values are float32, or int64 where that is said");
  const int out = r.out();
  return step([=](Frame& f) {
    int64_t shape[kMostDims];
    for (size_t i = 0; i < lengths.size(); ++i) shape[i] = f.at(lengths[i]);
    Value& to =
        f.make(out, whole ? DType::i64 : DType::f32, static_cast<int>(lengths.size()), shape);
    if (!whole) {
      std::fill_n(to.as<float>(), to.count(), static_cast<float>(f.at(number)));
      return;
    }
    const double value = f.at(number);
    if (!(std::fabs(value) < kMostWhole) || value != std::floor(value))
      throw ShapeError("a whole number below 2^53 is expected, got " + std::to_string(value));
    std::fill_n(to.as<int64_t>(), to.count(), static_cast<int64_t>(value));
    if (value >= 0) to.below = static_cast<int64_t>(value) + 1;
  });
}

template <class T>
void take_rows(const uint8_t* from, const T* index, int64_t count, int64_t bytes, uint8_t* to,
               int threads) {
  split_rows(count, bytes / 4 + 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to + i * bytes, from + static_cast<int64_t>(index[i]) * bytes,
                  static_cast<size_t>(bytes));
  });
}

StepPtr index_select(Reader& r) {
  const In x = r.value();
  const int dim = r.whole();
  const In index = r.value();
  const int out = r.out();
  if (dim != 0) r.fail("rows are selected: the dimension is 0");
  return step([=](Frame& f) {
    const Value& v = f[x];
    const Value& i = f[index];
    if (v.ndim < 1) throw ShapeError("rows of a single value are selected");
    if ((i.dtype != DType::i64 && i.dtype != DType::i32) || i.ndim != 1)
      wrong_array(i, "index", DType::i64, {i.count()});
    f.check_below(index, v.shape[0], "index", "the table");
    int64_t shape[kMostDims];
    std::copy_n(v.shape, v.ndim, shape);
    shape[0] = i.shape[0];
    uint8_t* to = f.make(out, v.dtype, v.ndim, shape).as<uint8_t>();
    const int64_t bytes = product(v.shape, 1, v.ndim) * bytes_of(v.dtype);
    if (bytes == 0) return;
    if (i.dtype == DType::i64) {
      take_rows(v.as<uint8_t>(), i.as<int64_t>(), i.shape[0], bytes, to, f.threads);
    } else {
      take_rows(v.as<uint8_t>(), i.as<int32_t>(), i.shape[0], bytes, to, f.threads);
    }
  });
}

StepPtr arange(Reader& r) {
  const Int end = r.integer();
  const std::string dtype = r.text();
  const int out = r.out();
  if (dtype != "int32" && dtype != "int64") r.fail("numbers that rise are int32 or int64");
  const bool wide = dtype == "int64";
  return step([=](Frame& f) {
    const int64_t n = f.at(end);
    if (!wide && n > INT32_MAX) throw ShapeError("more numbers than int32 has");
    Value& made = f.make(out, wide ? DType::i64 : DType::i32, {n});
    for (int64_t i = 0; i < n; ++i) {
      if (wide) {
        made.as<int64_t>()[i] = i;
      } else {
        made.as<int32_t>()[i] = static_cast<int32_t>(i);
      }
    }
    made.below = n;
  });
}

StepPtr shift(Reader& r) {
  const In x = r.value();
  const Int by = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f[x];
    if (v.dtype != DType::i64) wrong_array(v, "x", DType::i64, {v.count()});
    const int64_t* from = v.as<int64_t>();
    int64_t* to = f.make(out, DType::i64, v.ndim, v.shape).as<int64_t>();
    // Numbers wrap around, as torch's do.
    const auto plus = static_cast<uint64_t>(f.at(by));
    for (int64_t i = 0, n = v.count(); i < n; ++i)
      to[i] = static_cast<int64_t>(static_cast<uint64_t>(from[i]) + plus);
  });
}

}  // namespace

Operations shape_operations() {
  return {{"cat", cat},       {"stack", stack},
          {"slice", slice},   {"select", select},
          {"view", view},     {"transpose", transpose},
          {"clone", clone},   {"float", to_float, false, false, true},
          {"full", full},     {"index_select", index_select, true},
          {"arange", arange}, {"shift", shift}};
}

}  // namespace nodebits::plan
