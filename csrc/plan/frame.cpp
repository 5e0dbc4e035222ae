// What steps ask a run for.
#include "plan/kept.h"
#include "plan/workspace.h"

namespace nodebits::plan {
namespace {

std::string shape_of(const int64_t* shape, int ndim) {
  std::string s = "[";
  for (int i = 0; i < ndim; ++i) s += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

}  // namespace

std::string shape_text(const Value& v) { return shape_of(v.shape, v.ndim); }

void wrong_array(const Value& v, const char* name, DType dtype,
                 std::initializer_list<int64_t> shape) {
  throw ShapeError(std::string(name) + " is " + name_of(v.dtype) + " " + shape_text(v) +
                   ", expected " + name_of(dtype) + " " +
                   shape_of(shape.begin(), static_cast<int>(shape.size())));
}

void too_few_dims(const Value& v, const char* name) {
  throw ShapeError(std::string(name) + " is " + name_of(v.dtype) + " " + shape_text(v) +
                   ", too few dimensions");
}

int64_t Frame::at(const Int& i) const {
  if (i.value < 0) return i.plus;
  const Value& v = values_[i.value];
  if (i.axis >= 0) {
    if (i.axis >= v.ndim) too_few_dims(v, program.name_of(i.value).c_str());
    return v.shape[i.axis] + i.plus;
  }
  if (v.dtype != DType::i64 || v.count() != 1)
    wrong_array(v, program.name_of(i.value).c_str(), DType::i64, {1});
  return *v.as<int64_t>() + i.plus;
}

Value& Frame::make(int out, DType dtype, int ndim, const int64_t* shape) {
  Value& v = values_[out];
  int64_t count = 1;
  for (int i = 0; i < ndim; ++i) {
    if (shape[i] < 0) throw ShapeError("a result has a negative length");
    if (__builtin_mul_overflow(count, shape[i], &count) || count > int64_t{1} << 48)
      throw ShapeError("a result has the shape " + shape_of(shape, ndim) +
                       ", which no memory holds");
    v.shape[i] = shape[i];
  }
  v.dtype = dtype;
  v.ndim = ndim;
  v.below = v.ends = -1;
  v.stable = false;
  v.within = -1;
  v.data = workspace_.fresh(v, static_cast<size_t>(count * bytes_of(dtype)));
  v.set = true;
  return v;
}

Value& Frame::alias(int out, In of, int ndim, const int64_t* shape) {
  const Value& from = values_[of.value];
  Value& v = values_[out];
  for (int i = 0; i < ndim; ++i) v.shape[i] = shape[i];
  v.dtype = from.dtype;
  v.ndim = ndim;
  v.below = from.below;
  v.ends = -1;
  v.stable = false;
  v.within = from.within >= 0 ? from.within : of.value;
  v.data = from.data;
  v.set = true;
  return v;
}

void* Frame::scratch(size_t bytes) { return workspace_.scratch(bytes); }

EdgeBlocks Frame::blocks(In indptr, const SpmmArgs& a, int64_t rows, int64_t sources) {
  if (kept == nullptr || !values_[indptr.value].stable || a.weight != nullptr) return {};
  return kept->blocks(a, rows, sources, threads);
}

Ref Frame::flat(In in, const char* name, int64_t length) {
  const Value& v = values_[in.value];
  if (v.dtype == DType::f32 && v.ndim == 1 && v.shape[0] == length) return {&v};
  const int64_t count = v.count();
  if (v.dtype != DType::f32 || (count != length && count != 1))
    wrong_array(v, name, DType::f32, {length});
  Value& made = temporary();
  made.ndim = 1;
  made.shape[0] = length;
  made.data = v.data;
  if (count != length) {
    float* to = scratch<float>(length);
    std::fill_n(to, length, *v.as<float>());
    made.data = to;
  }
  return {&made};
}

Ref Frame::by_head(In in, const char* name, int64_t rows, int64_t heads) {
  const Value& v = values_[in.value];
  if (v.dtype != DType::f32 || v.ndim != 2 || v.shape[0] != rows ||
      (v.shape[1] != heads && v.shape[1] != 1))
    wrong_array(v, name, DType::f32, {rows, heads});
  if (v.shape[1] == heads) return {&v};
  Value& made = temporary();
  made.ndim = 2;
  made.shape[0] = rows;
  made.shape[1] = heads;
  float* to = scratch<float>(rows * heads);
  const float* from = v.as<float>();
  for (int64_t r = 0; r < rows; ++r) std::fill_n(to + r * heads, heads, from[r]);
  made.data = to;
  return {&made};
}

Value& Frame::unmade(int64_t rows, int64_t cols) {
  Value& made = temporary();
  made.ndim = 2;
  made.shape[0] = rows;
  made.shape[1] = cols;
  made.data = nullptr;
  return made;
}

Value& Frame::temporary() {
  if (used_ == temporaries_.size()) temporaries_.emplace_back();
  Value& v = temporaries_[used_++];
  v.dtype = DType::f32;
  return v;
}

void Frame::check_below(In in, int64_t limit, const char* name, const char* what) const {
  const Value& v = values_[in.value];
  const int64_t n = v.count();
  if (v.below < 0) {
    // A negative value is a huge unsigned one.
    uint64_t most = 0;
    if (v.dtype == DType::i32) {
      uint32_t top = 0;
      const uint32_t* p = v.as<uint32_t>();
      for (int64_t i = 0; i < n; ++i) top = p[i] > top ? p[i] : top;
      most = top;
    } else {
      const uint64_t* p = v.as<uint64_t>();
      for (int64_t i = 0; i < n; ++i) most = p[i] > most ? p[i] : most;
    }
    constexpr uint64_t kMost = INT64_MAX - 1;
    v.below = n == 0 ? 0 : static_cast<int64_t>(std::min(most, kMost)) + 1;
  }
  if (v.below <= limit) return;
  const auto refuse = [&](const auto* p) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = p[i];
      if (at < 0 || at >= limit)
        throw PlanError("NodeIndexError", std::string(name) + "[" + std::to_string(i) + "] is " +
                                              std::to_string(at) + ", outside [0, " +
                                              std::to_string(limit) + "): " + what + " has " +
                                              std::to_string(limit) + " rows");
    }
  };
  if (v.dtype == DType::i32) {
    refuse(v.as<int32_t>());
  } else {
    refuse(v.as<int64_t>());
  }
}

void Frame::check_rows(In indptr, int64_t edges) const {
  const Value& v = expect(indptr, "indptr", DType::i64, 1);
  if (v.shape[0] < 1) throw ShapeError("indptr must have at least one entry");
  if (v.ends == edges) return;
  check_indptr(v.as<int64_t>(), v.shape[0] - 1, edges);
  v.ends = edges;
}

const Value& Frame::expect(In in, const char* name, DType dtype, int ndim) const {
  const Value& v = values_[in.value];
  if (v.dtype != dtype || v.ndim != ndim)
    throw ShapeError(std::string(name) + " is " + name_of(v.dtype) + " " + shape_text(v) +
                     ", expected " + name_of(dtype) + " of " + std::to_string(ndim) +
                     " dimensions");
  return v;
}

}  // namespace nodebits::plan
