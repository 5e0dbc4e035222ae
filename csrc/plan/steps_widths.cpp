// Which width, scale and place rows of several widths have (nodebits/engine/sites/widths.py,
// own_nodes.py, engine/by_width.py, core/row_layout.py).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "plan/own_scale.h"
#include "plan/records.h"
#include "run/bucketed.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

// A width of every row, each 1 to 8.
const uint8_t* checked_widths(Frame& f, In widths, int64_t rows) {
  const uint8_t* w = data<uint8_t>(f.ref(widths), "widths", {rows});
  bool outside = false;
  for (int64_t i = 0; i < rows; ++i) outside |= w[i] < 1 || w[i] > 8;
  if (outside) throw PlanError("BitwidthError", "a width of a row is outside 1 to 8");
  return w;
}

StepPtr row_layout(Reader& r) {
  const In widths = r.value();
  const int order = r.out(), position = r.out(), counts = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(widths, "widths", DType::u8, 1).shape[0];
    const uint8_t* w = checked_widths(f, widths, rows);
    int64_t found[9] = {}, begin[9] = {}, next[9] = {};
    count_widths(w, rows, found);
    for (int b = 2; b <= 8; ++b) begin[b] = begin[b - 1] + found[b - 1];
    Value& nodes = f.make(order, DType::i32, {rows});
    int32_t* o = nodes.as<int32_t>();
    int32_t* p = f.make(position, DType::i32, {rows}).as<int32_t>();
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t place = next[w[i]]++;
      p[i] = static_cast<int32_t>(place);
      o[begin[w[i]] + place] = static_cast<int32_t>(i);
    }
    nodes.below = rows;
    std::copy_n(found + 1, 8, f.make(counts, DType::i64, {8}).as<int64_t>());
  });
}

StepPtr row_extent(Reader& r) {
  const In x = r.value();
  const bool with_sign = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& from = f.expect(x, "x", DType::f32, 2);
    const int64_t rows = from.shape[0], cols = from.shape[1];
    const float* values = from.as<float>();
    float* to = f.make(out, DType::f32, {rows}).as<float>();
    split_rows(rows, cols, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        // As integers: magnitudes rise with their bits, NaN is above all, as in torch's maximum.
        int32_t magnitude = 0, top = 0;
        for (int64_t c = 0; c < cols; ++c) {
          int32_t bits;
          std::memcpy(&bits, values + row * cols + c, sizeof bits);
          magnitude = std::max(magnitude, bits & INT32_MAX);
          top = std::max(top, bits);
        }
        constexpr int32_t kInfinity = 0x7f800000;
        const int32_t found = with_sign || magnitude > kInfinity ? magnitude : top;
        std::memcpy(to + row, &found, sizeof found);
      }
    });
  });
}

StepPtr width_scale(Reader& r) {
  const In extent = r.value(), widths = r.value();
  const bool with_sign = r.flag();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(extent, "extent", DType::f32, 1).shape[0];
    const uint8_t* w = checked_widths(f, widths, rows);
    const float* from = f[extent].as<float>();
    float* to = f.make(out, DType::f32, {rows}).as<float>();
    for (int64_t i = 0; i < rows; ++i) {
      const float reach = with_sign ? 2.0f * from[i] : from[i];
      const float scale = reach / static_cast<float>((1 << w[i]) - 1);
      to[i] = scale < kMinScale ? (with_sign ? kMinScale : 1.0f) : scale;
    }
  });
}

StepPtr row_zero_point(Reader& r) {
  const In zero_point = r.value(), widths = r.value(), shift = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(widths, "widths", DType::u8, 1).shape[0];
    const uint8_t* w = checked_widths(f, widths, rows);
    const float* zeros = data<float>(f.flat(zero_point, "zero_point", 8), "zero_point", {8});
    const uint8_t* by = shift ? data<uint8_t>(f.ref(shift), "shift", {rows}) : nullptr;
    float* to = f.make(out, DType::f32, {rows, 1}).as<float>();
    for (int64_t i = 0; i < rows; ++i) {
      const float zero = zeros[w[i] - 1];
      to[i] = by == nullptr ? zero : std::ldexp(zero, by[i]);
    }
  });
}

StepPtr inverse_power(Reader& r) {
  const In shift = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(shift, "shift", DType::u8, 1).shape[0];
    const uint8_t* by = f[shift].as<uint8_t>();
    float* to = f.make(out, DType::f32, {rows}).as<float>();
    for (int64_t i = 0; i < rows; ++i) to[i] = std::ldexp(1.0f, -static_cast<int>(by[i]));
  });
}

StepPtr zero_point_sum(Reader& r) {
  const In indptr = r.value(), indices = r.value(), zero = r.value(), weight = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& zeros = f.expect(zero, "zero_point", DType::f32, 2);
    const int64_t edges = f.expect(indices, "indices", DType::i32, 1).shape[0];
    check(zeros.shape[1] == 1, "zero_point of rows must have one column");
    f.check_rows(indptr, edges);
    f.check_below(indices, zeros.shape[0], "indices", "zero_point");
    const int64_t rows = f[indptr].shape[0] - 1;
    const int64_t heads = weight ? f.expect(weight, "weight", DType::f32, 2).shape[1] : 1;
    if (weight) data<float>(f.ref(weight), "weight", {edges, heads});
    const int64_t* p = f[indptr].as<int64_t>();
    const int32_t* from = f[indices].as<int32_t>();
    const float* z = zeros.as<float>();
    const float* w = weight ? f[weight].as<float>() : nullptr;
    float* to = f.make(out, DType::f32, {rows, heads}).as<float>();
    split_edges(p, rows, heads, f.threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        float* sum = to + row * heads;
        std::fill_n(sum, heads, 0.0f);
        for (int64_t e = p[row]; e < p[row + 1]; ++e) {
          for (int64_t h = 0; h < heads; ++h)
            sum[h] += w == nullptr ? z[from[e]] : z[from[e]] * w[e * heads + h];
        }
      }
    });
  });
}

StepPtr degree_bucket(Reader& r) {
  const In indptr = r.value();
  const std::vector<int64_t> splits = r.wholes();
  const int out = r.out();
  return step([=](Frame& f) {
    const Value& v = f.expect(indptr, "indptr", DType::i64, 1);
    if (v.shape[0] < 1) throw ShapeError("indptr must have at least one entry");
    const int64_t rows = v.shape[0] - 1;
    const int64_t* p = v.as<int64_t>();
    Value& made = f.make(out, DType::i64, {rows});
    int64_t* to = made.as<int64_t>();
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t degree = p[row + 1] - p[row];
      to[row] = std::upper_bound(splits.begin(), splits.end(), degree) - splits.begin();
    }
    made.below = static_cast<int64_t>(splits.size()) + 1;
  });
}

// What nodebits.graph.Graph.fingerprint computes: 63 bits of a sum over edges in any order.
StepPtr fingerprint(Reader& r) {
  const In indptr = r.value(), indices = r.value();
  const Int num_src = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t edges = f.expect(indices, "indices", DType::i32, 1).shape[0];
    f.check_rows(indptr, edges);
    const int64_t rows = f[indptr].shape[0] - 1;
    const int64_t* p = f[indptr].as<int64_t>();
    const int32_t* from = f[indices].as<int32_t>();
    const auto mixed = [](uint64_t v, int by) {
      return v ^ static_cast<uint64_t>(static_cast<int64_t>(v) >> by);
    };
    uint64_t sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const uint64_t target =
          static_cast<uint64_t>(row + 1) * static_cast<uint64_t>(-7046029254386353131LL);
      for (int64_t e = p[row]; e < p[row + 1]; ++e) {
        const uint64_t source = static_cast<uint64_t>(static_cast<int64_t>(from[e]) + 1) *
                                static_cast<uint64_t>(-4417276706812531889LL);
        sum += mixed(mixed(target, 29) * mixed(source, 31), 27);
      }
    }
    const uint64_t shape =
        static_cast<uint64_t>(f.at(num_src)) * 1000003u + static_cast<uint64_t>(rows);
    *f.make(out, DType::i64, {1}).as<int64_t>() =
        static_cast<int64_t>((sum + shape * 2654435761u) & (~uint64_t{0} >> 1));
  });
}

// The nodes of one graph, to which a site's parameters belong.
struct OwnNodes {
  explicit OwnNodes(Reader& r)
      : site(r.text()), fingerprint(r.optional()), known(r.long_whole()), nodes(r.whole()) {}
  std::string site;
  In fingerprint;
  int64_t known;
  int64_t nodes;

  bool same_edges(Frame& f) const {
    return !fingerprint || *data<int64_t>(f.ref(fingerprint), "fingerprint", {1}) == known;
  }
};

StepPtr own_nodes(Reader& r) {
  const OwnNodes own(r);
  const Int num_rows = r.integer();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.at(num_rows);
    if (rows != own.nodes || !own.same_edges(f))
      throw PlanError("GraphMismatchError",
                      "site '" + own.site + "' has a bitwidth for each of the " +
                          std::to_string(own.nodes) +
                          " nodes of the graph it was trained on, and got a graph of " +
                          (rows != own.nodes ? std::to_string(rows) + " nodes"
                                             : std::string("as many nodes but other edges")) +
                          ": run it on that graph, or save the model after serve_other_graphs()");
    Value& made = f.make(out, DType::i64, {rows});
    int64_t* to = made.as<int64_t>();
    for (int64_t i = 0; i < rows; ++i) to[i] = i;
    made.below = rows;
  });
}

StepPtr own_nodes_or(Reader& r) {
  const OwnNodes own(r);
  const In nearest = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const int64_t rows = f.expect(nearest, "nearest", DType::i64, 1).shape[0];
    Value& made = f.make(out, DType::i64, {rows});
    int64_t* to = made.as<int64_t>();
    if (rows == own.nodes && own.same_edges(f)) {
      for (int64_t i = 0; i < rows; ++i) to[i] = i;
      made.below = rows;
    } else {
      std::copy_n(f[nearest].as<int64_t>(), rows, to);
    }
  });
}

// Fields of `bits` in a string of bytes, at the places in `group`: calls use(row, field).
template <class F>
void each_field(Frame& f, In packed, int bits, In group, const F& use) {
  const int64_t bytes = f.expect(packed, "packed", DType::u8, 1).shape[0];
  const Value& places = f[group];
  if ((places.dtype != DType::i64 && places.dtype != DType::i32) || places.ndim != 1)
    wrong_array(places, "group", DType::i64, {places.count()});
  f.check_below(group, bytes * 8 / bits, "group", "packed");
  const uint8_t* p = f[packed].as<uint8_t>();
  const auto all = [&](const auto* at) {
    for (int64_t i = 0; i < places.shape[0]; ++i) {
      const int64_t bit = static_cast<int64_t>(at[i]) * bits, byte = bit / 8;
      unsigned word = p[byte];
      if (byte + 1 < bytes) word |= static_cast<unsigned>(p[byte + 1]) << 8;
      use(i, (word >> (bit % 8)) & ((1u << bits) - 1));
    }
  };
  if (places.dtype == DType::i32) {
    all(places.as<int32_t>());
  } else {
    all(places.as<int64_t>());
  }
}

StepPtr fields_at(Reader& r) {
  const In packed = r.value();
  const int bits = r.bits();
  const In group = r.value();
  const int plus = r.whole(), out = r.out();
  if (plus < 0 || plus > 1) r.fail("0 or 1 is added to a field");
  return step([=](Frame& f) {
    uint8_t* to = f.make(out, DType::u8, {f[group].count()}).as<uint8_t>();
    each_field(f, packed, bits, group,
               [&](int64_t i, unsigned field) { to[i] = static_cast<uint8_t>(field + plus); });
  });
}

StepPtr table_at(Reader& r) {
  const In table = r.value(), packed = r.value();
  const int bits = r.bits();
  const In group = r.value();
  const int out = r.out();
  return step([=](Frame& f) {
    const float* values = data<float>(f.ref(table), "table", {int64_t{1} << bits});
    float* to = f.make(out, DType::f32, {f[group].count()}).as<float>();
    each_field(f, packed, bits, group, [&](int64_t i, unsigned field) { to[i] = values[field]; });
  });
}

}  // namespace

Operations width_operations() {
  return {{"row_layout", row_layout, true},       {"row_extent", row_extent},
          {"width_scale", width_scale},           {"row_zero_point", row_zero_point, true},
          {"inverse_power", inverse_power, true}, {"zero_point_sum", zero_point_sum, true},
          {"degree_bucket", degree_bucket, true}, {"fingerprint", fingerprint, true},
          {"own_nodes", own_nodes, true},         {"own_nodes_or", own_nodes_or},
          {"fields_at", fields_at, true},         {"table_at", table_at, true}};
}

}  // namespace nodebits::plan
