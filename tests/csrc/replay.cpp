// Repeats operators whose arguments and results cases.py wrote, on every level that runs here, and
// compares all bytes. Needs no Python: it runs under an emulator of another processor.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "run/bucketed.h"
#include "run/dispatch.h"
#include "run/drivers.h"
#include "run/fused.h"
#include "run/pairs.h"
#include "run/propagate.h"
#include "run/sparse.h"

namespace nodebits {
namespace {

// A value of the file: nothing, a number, an array, or several values.
struct Value {
  char kind = 'n';
  double number = 0;
  std::vector<int64_t> shape;
  std::shared_ptr<uint8_t[]> bytes;
  size_t size = 0;
  std::vector<Value> items;

  template <class T>
  const T* data() const {
    return reinterpret_cast<const T*>(bytes.get());  // null where there is nothing
  }
  bool given() const { return kind != 'n'; }
  int64_t dim(size_t i) const { return shape.at(i); }
  int64_t integer() const { return static_cast<int64_t>(number); }
  float real() const { return static_cast<float>(number); }
};

class File {
 public:
  explicit File(const char* path) : stream_(path, std::ios::binary) {
    stream_.exceptions(std::ios::failbit | std::ios::badbit);
  }
  template <class T>
  T plain() {
    T x;
    stream_.read(reinterpret_cast<char*>(&x), sizeof x);
    return x;
  }
  std::string text() {
    std::string s(static_cast<size_t>(plain<int64_t>()), ' ');
    stream_.read(s.data(), static_cast<std::streamsize>(s.size()));
    return s;
  }
  Value value() {
    Value v;
    v.kind = plain<char>();
    if (v.kind == 'f') v.number = plain<double>();
    if (v.kind == 'l') {
      v.items.resize(static_cast<size_t>(plain<int64_t>()));
      for (Value& item : v.items) item = value();
    }
    if (v.kind == 't') {
      v.size = static_cast<size_t>(plain<int64_t>());
      v.shape.resize(static_cast<size_t>(plain<int64_t>()));
      for (int64_t& n : v.shape) {
        n = plain<int64_t>();
        v.size *= static_cast<size_t>(n);
      }
      v.bytes = std::make_shared<uint8_t[]>(v.size);
      stream_.read(reinterpret_cast<char*>(v.bytes.get()), static_cast<std::streamsize>(v.size));
    }
    return v;
  }

 private:
  std::ifstream stream_;
};

// Memory for results of the shapes that are expected, filled with a pattern.
std::vector<std::shared_ptr<uint8_t[]>> results(const std::vector<Value>& expected) {
  std::vector<std::shared_ptr<uint8_t[]>> out;
  for (const Value& v : expected) {
    out.push_back(std::make_shared<uint8_t[]>(v.size));
    std::memset(out.back().get(), 0xa5, v.size);
  }
  return out;
}

struct Call {
  const std::vector<Value>& in;
  const std::vector<Value>& expected;
  std::vector<std::shared_ptr<uint8_t[]>> made = results(expected);
  int threads;

  template <class T>
  T* out(size_t i = 0) const {
    return reinterpret_cast<T*>(made.at(i).get());
  }
  const Value& operator[](size_t i) const { return in.at(i); }
};

// What follows from argument `first` on: relu, scale, zero_point, bits, row_factor, widths,
// position, shift, post_scale, post_shift.
struct Finish {
  std::vector<FusedOutput> outputs;
  std::vector<std::vector<float>> spread;
  FusedArgs args{};

  Finish(const Call& c, size_t first, const std::vector<FusedTerm>& terms, int64_t rows,
         int64_t cols) {
    const auto& scale = c[first + 1].items;
    for (size_t i = 0; i < scale.size(); ++i) {
      FusedOutput o{};
      o.bits = static_cast<int>(c[first + 3].items[i].integer());
      o.scale = scale[i].data<float>();
      o.zero_point = c[first + 2].items[i].data<float>();
      o.row_factor = c[first + 4].items[i].data<float>();
      o.widths = c[first + 5].items[i].data<uint8_t>();
      o.position = c[first + 6].items[i].data<int32_t>();
      o.shift = c[first + 7].items[i].data<uint8_t>();
      o.axis = o.position != nullptr ? 0 : scale[i].dim(0) == 1 ? -1 : 1;
      o.packed = c.out<uint8_t>(i);
      o.bytes = static_cast<int64_t>(c.expected[i].size);
      if (o.widths != nullptr && o.axis == 1) {
        spread.emplace_back();
        for (int b = 0; b < 8; ++b)
          spread.back().insert(spread.back().end(), static_cast<size_t>(cols), o.zero_point[b]);
        o.zero_point = spread.back().data();
      }
      int64_t begin = 0;
      for (int b = 1; o.position != nullptr && b <= 8; ++b) {
        o.bucket_begin[b] = begin;
        for (int64_t r = 0; r < rows; ++r)
          if (o.widths[r] == b) begin += packed_row_bytes(cols, b);
      }
      outputs.push_back(o);
    }
    args.relu = c[first].integer() != 0;
    args.post_scale = c[first + 8].data<float>();
    args.post_shift = c[first + 9].data<float>();
    args.terms = terms.data();
    args.num_terms = static_cast<int>(terms.size());
    args.outputs = outputs.data();
    args.num_outputs = static_cast<int>(outputs.size());
    if (outputs.empty()) args.floats = c.out<float>();
    args.num_cols = cols;
  }
};

// An epilogue from arguments col_scale, col_offset, row_offset, row_scale and bias.
FusedTerm term(const Value& col_scale, const Value& col_offset, const Value& row_offset,
               const Value& row_scale, const Value& bias, const std::vector<float>& no_bias,
               int64_t cols) {
  FusedTerm t{};
  t.epilogue.col_scale = col_scale.data<float>();
  t.epilogue.col_offset = col_offset.data<float>();
  t.epilogue.row_offset = row_offset.data<float>();
  t.epilogue.row_scale = row_scale.data<float>();
  t.epilogue.bias = bias.given() ? bias.data<float>() : no_bias.data();
  t.epilogue.num_cols = cols;
  t.epilogue.heads = row_offset.given() ? row_offset.dim(1) : 1;
  if (row_scale.given() && row_scale.dim(1) > t.epilogue.heads) t.epilogue.heads = row_scale.dim(1);
  return t;
}

SpmmArgs sum_of(const Call& c) {
  SpmmArgs a{};
  a.indptr = c[0].data<int64_t>();
  a.indices = c[1].data<int32_t>();
  a.packed = c[2].data<uint8_t>();
  a.num_edges = c[1].dim(0);
  a.bits = static_cast<int>(c[3].integer());
  a.num_cols = c[4].integer();
  a.heads = 1;
  return a;
}

FieldRows fields(const Call& c, size_t at) {
  return {c[at].data<uint8_t>(), static_cast<int>(c[at + 1].integer())};
}

// Rows of edges at arguments `at` to `at` + 2: bytes, bits and places.
EdgeFields joined(const Call& c, size_t at) {
  if (!c[at].given()) return {};
  return {fields(c, at), c[at + 2].data<int64_t>()};
}

// Zero point and scale are arguments `affine` and the next.
PairSumArgs pair_sum_of(const Call& c, size_t affine) {
  PairSumArgs a{};
  a.indptr = c[0].data<int64_t>(), a.indices = c[1].data<int32_t>();
  a.source = fields(c, 2), a.num_cols = c[4].integer(), a.joined = joined(c, 5);
  a.zero_point = c[affine].data<float>(), a.scale = c[affine + 1].data<float>();
  a.out = c.out<float>();
  return a;
}

ScoreArgs scores_of(const Call& c) {
  ScoreArgs a{};
  a.indptr = c[0].data<int64_t>(), a.indices = c[1].data<int32_t>();
  a.source = fields(c, 2), a.num_cols = c[4].integer(), a.joined = joined(c, 5);
  a.target = fields(c, 8);
  a.vector = c[10].data<int32_t>(), a.floor = c[11].data<int32_t>();
  a.factor = c[12].data<float>(), a.source_factor = c[13].data<float>();
  a.heads = c[12].dim(0);
  return a;
}

// Blocks of `group` targets and `block` sources, where the case asks for them.
EdgeBlocks blocks_of(const Value& sizes, const SpmmArgs& a, int64_t rows, int64_t sources,
                     int threads, std::vector<int64_t>* memory) {
  EdgeBlocks plan;
  if (!sizes.given()) return plan;
  plan.rows = rows, plan.sources = sources, plan.edges = a.num_edges;
  plan.group_rows = sizes.items[0].integer(), plan.block_rows = sizes.items[1].integer();
  const size_t bytes = edge_blocks_bytes(plan);
  memory->resize((bytes + 7) / 8);
  make_edge_blocks(plan, a.indptr, a.indices, memory->data(), threads);
  view_edge_blocks(memory->data(), bytes, rows, sources, a.num_edges, &plan);
  return plan;
}

GemmArgs gemm_of(const Value& x, const Value& bits, const Value& depth, const Value& w) {
  return {x.data<uint8_t>(), nullptr, depth.integer(), w.dim(0), static_cast<int>(bits.integer())};
}

WeightArgs weight_of(const Value& w, const Value& depth, const Value& bits, const Value& midrise) {
  return {w.data<uint8_t>(), w.dim(0), depth.integer(), static_cast<int>(bits.integer()),
          midrise.integer() != 0};
}

Buckets buckets_of(const Value& order, const Value& counts, int64_t cols,
                   std::vector<int64_t>* room) {
  for (const Value& n : counts.items) room->push_back(n.integer());
  return {order.data<int32_t>(), room->data(), order.dim(0), cols};
}

const std::map<std::string, std::function<void(const Call&)>>& operators() {
  static const std::map<std::string, std::function<void(const Call&)>> all = {
      {"pack",
       [](const Call& c) {
         const PackArgs a{c[0].data<uint8_t>(), c.out<uint8_t>(), c[0].dim(1),
                          static_cast<int>(c[1].integer())};
         run_pack(a, c[0].dim(0), c.threads);
       }},
      {"unpack",
       [](const Call& c) {
         const UnpackArgs a{c[0].data<uint8_t>(), c.out<uint8_t>(), c[2].integer(),
                            static_cast<int>(c[1].integer())};
         run_unpack(a, c[0].dim(0), c.threads);
       }},
      {"quantize_pack",
       [](const Call& c) {
         run_quantize({c[0].data<float>(), c[1].data<float>(), c[2].data<float>(),
                       c[5].data<float>(), c.out<uint8_t>(), nullptr, c[0].dim(1),
                       static_cast<int>(c[3].integer()), static_cast<int>(c[4].integer())},
                      c[0].dim(0), c.threads);
       }},
      {"fake_quantize",
       [](const Call& c) {
         run_quantize({c[0].data<float>(), c[1].data<float>(), c[2].data<float>(), nullptr, nullptr,
                       c.out<float>(), c[0].dim(1), static_cast<int>(c[3].integer()),
                       static_cast<int>(c[4].integer())},
                      c[0].dim(0), c.threads);
       }},
      {"quantize_pack_bucketed",
       [](const Call& c) {
         FusedOutput o{};
         const int64_t rows = c[0].dim(0), cols = c[0].dim(1);
         o.scale = c[1].data<float>();
         o.zero_point = c[2].data<float>();
         o.axis = static_cast<int>(c[3].integer());
         o.bits = 8;
         o.widths = c[4].data<uint8_t>();
         o.position = c[5].data<int32_t>();
         o.row_factor = c[6].data<float>();
         o.packed = c.out<uint8_t>();
         std::vector<float> spread;
         for (int b = 0; o.axis == 1 && b < 8; ++b)
           spread.insert(spread.end(), static_cast<size_t>(cols), o.zero_point[b]);
         if (o.axis == 1) o.zero_point = spread.data();
         for (int b = 1; b <= 8; ++b) {
           o.bucket_begin[b] = o.bytes;
           for (int64_t r = 0; r < rows; ++r)
             if (o.widths[r] == b) o.bytes += packed_row_bytes(cols, b);
         }
         run_quantize_mixed(o, c[0].data<float>(), rows, cols, false, c.threads);
       }},
      {"unpack_bucketed",
       [](const Call& c) {
         std::vector<int64_t> room;
         const Buckets b = buckets_of(c[1], c[2], c[3].integer(), &room);
         run_unpack_bucketed(c[0].data<uint8_t>(), c[4].data<uint8_t>(), c.out<uint8_t>(), b,
                             c.threads);
       }},
      {"gemm",
       [](const Call& c) {
         run_gemm(gemm_of(c[0], c[1], c[2], c[3]), weight_of(c[3], c[2], c[4], c[5]),
                  c.out<int32_t>(), c[0].dim(0), c.threads);
       }},
      {"spmm",
       [](const Call& c) {
         SpmmArgs a = sum_of(c);
         a.coding = static_cast<int>(c[6].integer());
         std::vector<int64_t> memory;
         const int64_t rows = c[0].dim(0) - 1, sources = c[2].dim(0);
         const EdgeBlocks blocks = blocks_of(c[5], a, rows, sources, c.threads, &memory);
         run_spmm(a, c.out<int32_t>(), rows, sources, c.threads, &blocks);
       }},
      {"spmm_weighted",
       [](const Call& c) {
         SpmmArgs a = sum_of(c);
         a.weight = c[5].data<uint8_t>();
         a.heads = c[5].dim(1);
         run_spmm(a, c.out<int32_t>(), c[0].dim(0) - 1, c[2].dim(0), c.threads, nullptr);
       }},
      {"rescale",
       [](const Call& c) {
         const int64_t cols = c[0].dim(1);
         const std::vector<float> no_bias(static_cast<size_t>(cols), -0.0f);
         RescaleArgs a = term(c[1], c[2], c[3], c[4], c[5], no_bias, cols).epilogue;
         a.acc = c[0].data<int32_t>();
         a.out = c.out<float>();
         run_rescale(a, c[0].dim(0), c.threads);
       }},
      {"edge_softmax",
       [](const Call& c) {
         run_edge_softmax({c[0].data<int64_t>(), c[1].data<int32_t>(), c[2].data<float>(),
                           c[3].data<float>(), c.out<uint8_t>(0), c.out<int32_t>(1), c[2].dim(1),
                           c[4].real(), static_cast<int>(c[5].integer())},
                          c[0].dim(0) - 1, c.threads);
       }},
      {"pair_scores",
       [](const Call& c) {
         run_pair_scores(scores_of(c), c.out<float>(), c[0].dim(0) - 1, c.threads);
       }},
      {"attention_codes",
       [](const Call& c) {
         const int bits = static_cast<int>(c[14].integer());
         run_attention_codes(scores_of(c), {c.out<uint8_t>(0), c.out<int32_t>(1), bits},
                             c[0].dim(0) - 1, c.threads);
       }},
      {"rectified_sum",
       [](const Call& c) {
         PairSumArgs a = pair_sum_of(c, 9);
         a.floor = c[8].data<int32_t>();
         run_rectified_sum(a, c[0].dim(0) - 1, c.threads);
       }},
      {"rectified_softmax",
       [](const Call& c) {
         PairSumArgs a = pair_sum_of(c, 11);
         a.floor = c[8].data<int32_t>(), a.table = c[9].data<uint8_t>();
         a.falling = c[10].integer() != 0;
         run_rectified_softmax(a, c[0].dim(0) - 1, c.threads);
       }},
      {"gated_sum",
       [](const Call& c) {
         PairSumArgs a = pair_sum_of(c, 12);
         a.target = fields(c, 8), a.value = a.source, a.joined_value = a.joined;
         a.table = c[10].data<uint8_t>(), a.gate_zero = static_cast<int>(c[11].integer());
         run_gated_sum(a, c[0].dim(0) - 1, c.threads);
       }},
      {"fused_spmm",
       [](const Call& c) {
         SpmmArgs a = sum_of(c);
         const int64_t rows = c[0].dim(0) - 1, sources = c[2].dim(0);
         if (c[5].given()) a.weight = c[5].data<uint8_t>(), a.heads = c[5].dim(1);
         std::vector<int64_t> memory;
         const EdgeBlocks blocks = blocks_of(c[6], a, rows, sources, c.threads, &memory);
         const std::vector<float> no_bias(static_cast<size_t>(a.num_cols), -0.0f);
         FusedTerm t = term(c[9], c[10], c[11], c[12], c[13], no_bias, a.num_cols);
         t.acc_scale = c[7].data<int32_t>();
         t.acc_offset = c[8].data<int32_t>();
         const std::vector<FusedTerm> terms{t};
         Finish f(c, 16, terms, rows, a.num_cols);
         f.args.own = c[14].data<uint8_t>();
         f.args.own_bits = a.bits;
         if (c[15].given()) f.args.own_factor = *c[15].data<float>();
         run_fused_spmm(a, blocks, rows, sources, f.args, c.threads);
       }},
      {"fused_gemm",
       [](const Call& c) {
         const int64_t rows = c[0].items[0].dim(0), cols = c[3].items[0].dim(0);
         const std::vector<float> no_bias(static_cast<size_t>(cols), -0.0f);
         std::vector<FusedProduct> products;
         std::vector<FusedTerm> terms;
         for (size_t i = 0; i < c[0].items.size(); ++i) {
           const auto at = [&](size_t k) -> const Value& { return c[k].items[i]; };
           products.push_back(
               {gemm_of(at(0), at(1), at(2), at(3)), weight_of(at(3), at(2), at(4), at(5))});
           terms.push_back(term(at(6), at(7), Value{}, at(8), at(9), no_bias, cols));
         }
         const Finish f(c, 10, terms, rows, cols);
         run_fused_gemm(products, rows, f.args, c.threads);
       }},
      {"fused_gemm_bucketed",
       [](const Call& c) {
         std::vector<int64_t> room;
         const Buckets b = buckets_of(c[1], c[2], c[3].integer(), &room);
         const int64_t cols = c[4].dim(0);
         const std::vector<float> no_bias(static_cast<size_t>(cols), -0.0f);
         const FusedProduct product{{c[0].data<uint8_t>(), nullptr, c[3].integer(), cols, 8},
                                    weight_of(c[4], c[3], c[5], c[6])};
         const std::vector<FusedTerm> terms{term(c[7], c[8], c[9], c[10], c[11], no_bias, cols)};
         const Finish f(c, 12, terms, b.rows, cols);
         run_fused_gemm_bucketed(product, b, f.args, c.threads);
       }},
      {"propagate",
       [](const Call& c) {
         PropagateArgs a{};
         a.indptr = c[0].data<int64_t>();
         a.indices = c[1].data<int32_t>();
         a.x = c[2].data<float>();
         a.factor = c[3].data<float>();
         a.out = c.out<float>();
         a.num_edges = c[1].dim(0);
         a.num_cols = c[2].dim(1);
         for (size_t i = 0; i < c[7].items.size(); ++i) {
           const size_t at = i * static_cast<size_t>(a.num_cols);
           a.rounds.push_back({c[4].data<float>() + at, c[5].data<float>() + at,
                               c[6].data<float>() + at, static_cast<int>(c[7].items[i].integer())});
         }
         for (const Value& x : c[8].items) a.coefficients.push_back(x.real());
         a.laplacian = c[9].integer() != 0;
         a.keep = static_cast<float>(1.0 - c[10].number);
         a.teleport = c[10].real();
         run_propagate(a, c[2].dim(0), c.threads);
       }},
  };
  return all;
}

int replay(const char* path) {
  File file(path);
  const int64_t cases = file.plain<int64_t>();
  int64_t wrong = 0;
  std::map<std::string, int64_t> done;
  for (int64_t n = 0; n < cases; ++n) {
    const std::string name = file.text();
    const Value in = file.value(), expected = file.value();
    const auto& run = operators().at(name);
    for (const IsaLevel& level : isa_levels()) {
      if (!set_isa(level.name)) continue;
      for (int threads = 1; threads <= 2; ++threads) {
        const Call call{.in = in.items, .expected = expected.items, .threads = threads};
        run(call);
        ++done[std::string(level.name) + " " + name];
        for (size_t i = 0; i < call.made.size(); ++i) {
          if (std::memcmp(call.made[i].get(), call.expected[i].bytes.get(),
                          call.expected[i].size) == 0)
            continue;
          ++wrong;
          std::printf("case %lld: %s on %s with %d threads differs in result %zu\n",
                      static_cast<long long>(n), name.c_str(), level.name, threads, i);
        }
      }
    }
  }
  for (const auto& [what, times] : done)
    std::printf("%s: %lld\n", what.c_str(), static_cast<long long>(times));
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace nodebits

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: replay FILE\n");
    return 2;
  }
  return nodebits::replay(argv[1]);
}
