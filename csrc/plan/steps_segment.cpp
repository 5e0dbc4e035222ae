// Reductions: of rows that share an index, in order of rows, and of one dimension.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "plan/program.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

struct Segments {
  const int64_t* index;
  int64_t rows;
  int64_t cols;
  int64_t size;
  bool sorted;
};

Segments read_segments(Frame& f, In src, In index, int64_t size) {
  const Value& x = f[src];
  const Value& i = f.expect(index, "index", DType::i64, 1);
  if (x.dtype != DType::f32 || x.ndim < 1 || x.shape[0] != i.shape[0])
    throw ShapeError("rows " + shape_text(x) + " of " + name_of(x.dtype) + " with an index of " +
                     std::to_string(i.shape[0]) + ": expected float32, one index per row");
  f.check_below(index, size, "index", "the result");
  const int64_t* p = i.as<int64_t>();
  const int64_t rows = i.shape[0];
  bool sorted = true;
  for (int64_t r = 1; r < rows; ++r) sorted &= p[r - 1] <= p[r];
  return {p, rows, rows == 0 ? 0 : x.count() / rows, size, sorted};
}

Value& make_result(Frame& f, int out, In src, int64_t size) {
  const Value& x = f[src];
  int64_t shape[kMostDims];
  std::copy_n(x.shape, x.ndim, shape);
  shape[0] = size;
  Value& made = f.make(out, DType::f32, x.ndim, shape);
  std::fill_n(made.as<float>(), made.count(), 0.0f);
  return made;
}

// Calls f(begin, end, first column, last column) for rows whose results no other call touches.
template <class F>
void split_segments(const Segments& s, int threads, const F& f) {
  const int64_t work = s.rows * s.cols;
  if (threads <= 1 || work < kTaskWork) return f(int64_t{0}, s.rows, int64_t{0}, s.cols);
  const int64_t tasks = std::min<int64_t>(2 * threads, work / kTaskWork + 1);
  if (s.sorted) {
    const auto begin_of = [&](int64_t t) {
      int64_t row = s.rows * t / tasks;
      while (row > 0 && row < s.rows && s.index[row] == s.index[row - 1]) ++row;
      return row;
    };
    return parallel_for(tasks, threads,
                        [&](int64_t t) { f(begin_of(t), begin_of(t + 1), int64_t{0}, s.cols); });
  }
  const int64_t parts = std::min(tasks, std::max<int64_t>(1, s.cols / 16));
  parallel_for(parts, threads, [&](int64_t t) {
    f(int64_t{0}, s.rows, s.cols * t / parts, s.cols * (t + 1) / parts);
  });
}

StepPtr segment_sum(Reader& r) {
  const In src = r.value(), index = r.value();
  const Int size = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const Segments s = read_segments(f, src, index, f.at(size));
    float* to = make_result(f, out, src, s.size).as<float>();
    const float* from = f[src].as<float>();
    split_segments(s, f.threads, [&](int64_t begin, int64_t end, int64_t first, int64_t last) {
      for (int64_t row = begin; row < end; ++row) {
        float* sum = to + s.index[row] * s.cols;
        const float* x = from + row * s.cols;
        for (int64_t c = first; c < last; ++c) sum[c] += x[c];
      }
    });
  });
}

template <bool kLargest>
float further(float x, float best) {
  const bool better = kLargest ? x > best : x < best;
  return better || x != x ? x : best;
}

// Rows without entries are 0, NaN stays.
template <bool kLargest>
StepPtr segment_extreme(Reader& r) {
  const In src = r.value(), index = r.value();
  const Int size = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const Segments s = read_segments(f, src, index, f.at(size));
    float* to = make_result(f, out, src, s.size).template as<float>();
    const float* from = f[src].template as<float>();
    uint8_t* seen = f.scratch<uint8_t>(s.size);
    std::memset(seen, 0, static_cast<size_t>(s.size));
    // The first row of a result replaces its zeros.
    uint8_t* opens = f.scratch<uint8_t>(s.rows);
    for (int64_t row = 0; row < s.rows; ++row) {
      opens[row] = seen[s.index[row]] == 0;
      seen[s.index[row]] = 1;
    }
    split_segments(s, f.threads, [&](int64_t begin, int64_t end, int64_t first, int64_t last) {
      for (int64_t row = begin; row < end; ++row) {
        float* best = to + s.index[row] * s.cols;
        const float* x = from + row * s.cols;
        if (opens[row]) {
          std::copy(x + first, x + last, best + first);
          continue;
        }
        for (int64_t c = first; c < last; ++c) {
          best[c] = further<kLargest>(x[c], best[c]);
        }
      }
    });
  });
}

StepPtr max_index(Reader& r) {
  const In index = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& i = f.expect(index, "index", DType::i64, 1);
    const int64_t* p = i.as<int64_t>();
    int64_t top = -1;
    for (int64_t k = 0; k < i.shape[0]; ++k) {
      if (p[k] < 0)
        throw PlanError("NodeIndexError", f.program.name_of(index.value) + "[" + std::to_string(k) +
                                              "] is " + std::to_string(p[k]) +
                                              ": an index is 0 or more");
      top = std::max(top, p[k]);
    }
    *f.make(out, DType::i64, {1}).as<int64_t>() = top;
  });
}

// Four floats: of plain ones gcc 12 makes no vectors where NaN is told apart.
typedef float Four __attribute__((vector_size(16)));

// Of entries that lie one after another: one chain would wait for every comparison.
template <bool kLargest>
float extreme_of(const float* x, int64_t n) {
  constexpr int kVectors = 4, kChains = 16;
  if (n < kChains) {
    float best = x[0];
    for (int64_t k = 1; k < n; ++k) best = further<kLargest>(x[k], best);
    return best;
  }
  Four best[kVectors], next[kVectors];
  std::memcpy(best, x, sizeof best);
  int64_t k = kChains;
  for (; k + kChains <= n; k += kChains) {
    std::memcpy(next, x + k, sizeof next);
    for (int i = 0; i < kVectors; ++i) {
      const Four v = next[i];
      best[i] = ((kLargest ? v > best[i] : v < best[i]) | (v != v)) ? v : best[i];
    }
  }
  float each[kChains];
  std::memcpy(each, best, sizeof each);
  for (; k < n; ++k) each[0] = further<kLargest>(x[k], each[0]);
  for (int i = 1; i < kChains; ++i) each[0] = further<kLargest>(each[i], each[0]);
  return each[0];
}

template <bool kLargest>
StepPtr extreme(Reader& r) {
  const In x = r.value();
  const int dim = r.whole();
  const bool keep = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f[x];
    if (v.dtype != DType::f32) wrong_array(v, "x", DType::f32, {});
    const int d = dim < 0 ? dim + v.ndim : dim;
    if (d < 0 || d >= v.ndim)
      throw ShapeError("dimension " + std::to_string(dim) + " of " + shape_text(v));
    const int64_t n = v.shape[d];
    if (n == 0) throw ShapeError("the largest of no values");
    int64_t shape[kMostDims], outer = 1, inner = 1;
    int ndim = 0;
    for (int i = 0; i < v.ndim; ++i) {
      if (i < d) outer *= v.shape[i];
      if (i > d) inner *= v.shape[i];
      if (i != d || keep) shape[ndim++] = i == d ? 1 : v.shape[i];
    }
    float* to = f.make(out, DType::f32, ndim, shape).template as<float>();
    const float* from = v.as<float>();
    split_rows(outer, n * inner, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        float* best = to + o * inner;
        if (inner == 1) {
          *best = extreme_of<kLargest>(from + o * n, n);
          continue;
        }
        std::copy_n(from + o * n * inner, inner, best);
        for (int64_t k = 1; k < n; ++k) {
          const float* row = from + (o * n + k) * inner;
          for (int64_t i = 0; i < inner; ++i) best[i] = further<kLargest>(row[i], best[i]);
        }
      }
    });
  });
}

}  // namespace

Operations segment_operations() {
  return {{"segment_sum", segment_sum},
          {"segment_max", segment_extreme<true>},
          {"segment_min", segment_extreme<false>},
          {"max_index", max_index},
          {"amax", extreme<true>},
          {"amin", extreme<false>}};
}

}  // namespace nodebits::plan
