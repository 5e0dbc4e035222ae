// Sums of functions of codes at an edge.
#include "plan/records.h"
#include "run/gates.h"

namespace nodebits::plan {
namespace {

StepPtr modulated_sum(Reader& r) {
  const EdgesArg edges(r);
  const SourceArg source(r);
  const In film = r.value(), scale = r.value(), zero_point = r.value(), row_scale = r.optional();
  const int out = r.out();
  return step([=](Frame& f) {
    const SourceOf<Ref> theirs = source.in(f);
    const EdgesOf<Ref> adjacency = edges.in(f, theirs.rows());
    const int64_t cols = theirs.num_cols;
    ModulatedArgs a = modulated_args(adjacency, theirs, f.ref(film), f.flat(scale, "scale", cols),
                                     f.flat(zero_point, "zero_point", cols), f.optional(row_scale));
    const int64_t rows = adjacency.rows();
    a.out = f.make(out, DType::f32, {rows, a.num_cols}).as<float>();
    const PlainRows plain(theirs, a.num_cols, f.threads);
    a.source = plain.rows();
    run_modulated_sum(a, rows, f.threads);
  });
}

struct ListedSource {
  In packed;
  int bits;
  Int num_cols;
  int coding;
};

// Records whose fields come as a list each.
std::vector<ListedSource> read_sources(Reader& r) {
  const std::vector<In> packed = r.values();
  const std::vector<int64_t> bits = r.wholes();
  const std::vector<Int> cols = r.integers();
  const std::vector<int64_t> coding = r.wholes();
  const size_t n = packed.size();
  if (bits.size() != n || cols.size() != n || coding.size() != n || n == 0)
    r.fail("the lists of the rows have different lengths");
  std::vector<ListedSource> made;
  for (size_t i = 0; i < n; ++i) {
    if (bits[i] < 1 || bits[i] > 8) r.fail("bits must be 1 to 8");
    made.push_back({packed[i], static_cast<int>(bits[i]), cols[i], static_cast<int>(coding[i])});
  }
  return made;
}

StepPtr gated_product(Reader& r) {
  const EdgesArg edges(r);
  const std::vector<ListedSource> listed = read_sources(r);
  const In order = r.optional(), gates = r.value(), values = r.value(), scale = r.value();
  const bool largest = !r.at_end() && r.flag();  // files of older versions hold sums
  const int out = r.out();
  return step([=](Frame& f) {
    std::vector<SourceOf<Ref>> rows;
    for (const ListedSource& one : listed)
      rows.push_back({f.ref(one.packed), one.bits, f.at(one.num_cols), one.coding});
    const EdgesOf<Ref> adjacency = edges.in(f, rows[0].rows());
    GatedProductArgs a = gated_product_args(adjacency, rows, f.optional(order), f.ref(gates),
                                            f.ref(values), f.flat(scale, "scale", 1), largest);
    a.out = f.make(out, DType::f32, {adjacency.rows(), a.num_cols}).as<float>();
    const auto kept = plain_rows(rows, a.num_cols, f.threads, &a);
    run_gated_product(a, adjacency.rows(), f.threads);
  });
}

}  // namespace

Operations gate_operations() {
  return {{"modulated_sum", modulated_sum}, {"gated_product", gated_product}};
}

}  // namespace nodebits::plan
