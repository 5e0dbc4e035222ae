// What stands around convolutions: embeddings, norms of rows, attention between rows.
#include <algorithm>
#include <cmath>
#include <vector>

#include "plan/records.h"
#include "run/attention.h"
#include "run/dispatch.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

const Value& rows_of(Frame& f, In in) {
  const Value& v = f[in];
  if (v.dtype != DType::f32 || v.ndim == 0) wrong_array(v, "x", DType::f32, {v.count()});
  return v;
}

// Rows of a packed table by their numbers, times the scale of each.
StepPtr embedding(Reader& r) {
  const In ids = r.value(), packed = r.value(), scale = r.value();
  const int bits = r.bits();
  const Int num_cols = r.integer();
  const bool midrise = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& which = f[ids];
    if (which.ndim != 1 || (which.dtype != DType::i64 && which.dtype != DType::i32))
      wrong_array(which, "ids", DType::i64, {which.count()});
    const SourceOf<Ref> table{f.ref(packed), bits, f.at(num_cols), 0};
    const uint8_t* from = table.checked();
    const int64_t cols = table.num_cols, row_bytes = packed_row_bytes(cols, bits);
    f.check_below(ids, table.rows(), "ids", "the table");
    const float* scales = f.flat(scale, "scale", table.rows()).value->as<float>();
    const int64_t count = which.shape[0];
    float* to = f.make(out, DType::f32, {count, cols}).as<float>();
    const Kernels& k = kernels();
    const int half = 1 << (bits - 1), whole = 1 << bits;
    split_rows(count, 4 * cols, f.threads, [&](int64_t begin, int64_t end) {
      std::vector<uint8_t> fields(static_cast<size_t>(cols));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t id =
            which.dtype == DType::i64 ? which.as<int64_t>()[i] : int64_t{which.as<int32_t>()[i]};
        k.unpack({from + id * row_bytes, fields.data(), cols, bits}, 0, 1);
        float* row = to + i * cols;
        for (int64_t c = 0; c < cols; ++c) {
          const int field = fields[static_cast<size_t>(c)];
          const int code = field >= half ? field - whole : field;
          row[c] = static_cast<float>(midrise ? 2 * code + 1 : code) * scales[id];
        }
      }
    });
  });
}

// The sum of a row as core/row_norm.py adds it: halves of a power of two, padded by zeros.
float halved_sum(float* values, int64_t width) {
  for (int64_t half = width / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) values[i] += values[i + half];
  }
  return values[0];
}

int64_t padded(int64_t n) {
  int64_t width = 1;
  while (width < n) width *= 2;
  return width;
}

// Calls f(row, room) for every row; `room` holds as many floats as a padded row.
template <class F>
void each_row(int64_t rows, int64_t cols, int threads, const F& f) {
  const int64_t width = padded(cols);
  split_rows(rows, 4 * width, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> room(static_cast<size_t>(width));
    for (int64_t row = begin; row < end; ++row) f(row, room.data(), width);
  });
}

StepPtr row_sum(Reader& r) {
  const In x = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = rows_of(f, x);
    const int64_t cols = from.shape[from.ndim - 1];
    int64_t shape[kMostDims], rows = 1;
    for (int d = 0; d + 1 < from.ndim; ++d) rows *= shape[d] = from.shape[d];
    shape[from.ndim - 1] = 1;
    const float* a = from.as<float>();
    float* to = f.make(out, DType::f32, from.ndim, shape).as<float>();
    each_row(rows, cols, f.threads, [&](int64_t row, float* room, int64_t width) {
      std::copy_n(a + row * cols, cols, room);
      std::fill(room + cols, room + width, 0.0f);
      to[row] = halved_sum(room, width);
    });
  });
}

StepPtr row_norm(Reader& r) {
  const In x = r.value(), weight = r.optional(), bias = r.optional();
  const Number eps = r.number();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = rows_of(f, x);
    const int64_t cols = from.shape[from.ndim - 1];
    const float *w = nullptr, *b = nullptr;
    if (weight) w = f.flat(weight, "weight", cols).value->as<float>();
    if (bias) b = f.flat(bias, "bias", cols).value->as<float>();
    const float least = static_cast<float>(f.at(eps)), count = static_cast<float>(cols);
    const float* a = from.as<float>();
    float* to = f.make(out, DType::f32, from.ndim, from.shape).as<float>();
    if (cols == 0) return;
    each_row(from.count() / cols, cols, f.threads, [&](int64_t row, float* room, int64_t width) {
      const float* v = a + row * cols;
      float* y = to + row * cols;
      std::copy_n(v, cols, room);
      std::fill(room + cols, room + width, 0.0f);
      const float mean = halved_sum(room, width) / count;
      for (int64_t i = 0; i < cols; ++i) y[i] = v[i] - mean;
      for (int64_t i = 0; i < cols; ++i) room[i] = y[i] * y[i];
      std::fill(room + cols, room + width, 0.0f);
      const float deviation = std::sqrt(halved_sum(room, width) / count + least);
      for (int64_t i = 0; i < cols; ++i) y[i] /= deviation;
      if (w != nullptr) {
        for (int64_t i = 0; i < cols; ++i) y[i] *= w[i];
      }
      if (b != nullptr) {
        for (int64_t i = 0; i < cols; ++i) y[i] += b[i];
      }
    });
  });
}

StepPtr graph_attention(Reader& r) {
  const In query = r.value(), key = r.value(), value = r.value(), batch = r.optional();
  const int heads = r.whole(), out = r.out();
  if (heads < 1) r.fail("heads must be at least 1");
  return step([=](Frame& f) {
    const Value& first = f.expect(query, "query", DType::f32, 2);
    const int64_t n = first.shape[0], c = first.shape[1];
    if (c % heads != 0) throw ShapeError("heads must divide the columns of " + shape_text(first));
    AttentionArgs a{};
    a.query = first.as<float>();
    a.key = data<float>(f.ref(key), "key", {n, c});
    a.value = data<float>(f.ref(value), "value", {n, c});
    if (batch) a.batch = data<int64_t>(f.ref(batch), "batch", {n});
    a.rows = n;
    a.heads = heads;
    a.width = c / heads;
    a.out = f.make(out, DType::f32, {n, c}).as<float>();
    if (!run_graph_attention(a, f.threads)) throw ShapeError("batch must ascend");
  });
}

}  // namespace

Operations block_operations() {
  return {{"embedding", embedding},
          {"row_sum", row_sum},
          {"row_norm", row_norm},
          {"graph_attention", graph_attention}};
}

}  // namespace nodebits::plan
