// Adjacencies under updates, and what a change reaches.
#include "run/changing.h"

#include "bindings/define.h"
#include "bindings/given.h"
#include "run/csr.h"

namespace nodebits {
namespace {

struct Numbers {
  const int64_t* p;
  int64_t n;
};

Numbers numbers(const In& array, const char* name, int64_t limit) {
  const int64_t n = size(array, 0, name);
  const int64_t* p = data<int64_t>(array, name, {n});
  check(first_outside(p, n, limit, 1) < 0, (std::string(name) + " must be below the rows").c_str());
  return {p, n};
}

// The rows, and marks that are kept from one question to the next.
struct Changing {
  Changing(const In& indptr, const In& entries, const OptionalIn& weight) {
    const int64_t rows = size(indptr, 0, "indptr") - 1, n = size(entries, 0, "entries");
    check(rows >= 0 && rows <= INT32_MAX, "indptr must have 1 to 2^31 entries");
    const int64_t* ptr = data<int64_t>(indptr, "indptr", {rows + 1});
    const int32_t* all = data<int32_t>(entries, "entries", {n});
    const float* w = weight ? data<float>(*weight, "weight", {n}) : nullptr;
    check_indptr(ptr, rows, n);
    for (int64_t i = 0; i < rows; ++i)
      check(ptr[i + 1] - ptr[i] <= INT32_MAX, "a row must have less than 2^31 entries");
    made = std::make_unique<ChangingRows>(rows, ptr, all, weight.has_value(), w);
  }

  void append(const In& row, const In& entry, const OptionalIn& weight) {
    const Numbers to = numbers(row, "row", made->rows());
    const int64_t* what = data<int64_t>(entry, "entry", {to.n});
    check(first_outside(what, to.n, INT32_MAX, 1) < 0, "entry must be below 2^31 - 1");
    check(weight.has_value() == made->weighted(), "weight must be given where rows have weights");
    made->append(to.p, what, weight ? data<float>(*weight, "weight", {to.n}) : nullptr, to.n);
  }

  int64_t remove(const In& row, const In& entry, bool keep) {
    const Numbers from = numbers(row, "row", made->rows());
    const int64_t* what = data<int64_t>(entry, "entry", {from.n});
    check(first_outside(what, from.n, INT32_MAX, 1) < 0, "entry must be below 2^31 - 1");
    return made->remove(from.p, what, from.n, keep);
  }

  auto gather(const In& row, bool loops) const {
    const Numbers of = numbers(row, "row", made->rows());
    GatheredRows rows = made->gather(of.p, of.n, loops);
    return std::make_tuple(given(std::move(rows.indptr)), given(std::move(rows.entries)),
                           given(std::move(rows.weight)));
  }

  auto counts(const In& row, bool loops) const {
    const Numbers of = numbers(row, "row", made->rows());
    std::vector<int64_t> found(static_cast<size_t>(of.n));
    for (int64_t i = 0; i < of.n; ++i) found[static_cast<size_t>(i)] = made->count(of.p[i], loops);
    return given(std::move(found));
  }

  auto change(const In& changed, bool loops, const In& added_source, const In& added_target,
              const In& removed_source, const In& removed_target) {
    const int64_t rows = made->rows();
    const Numbers of = numbers(changed, "changed", rows);
    const Numbers s = numbers(added_source, "added_source", rows);
    const Numbers t = numbers(added_target, "added_target", rows);
    const Numbers rs = numbers(removed_source, "removed_source", rows);
    const Numbers rt = numbers(removed_target, "removed_target", rows);
    check(s.n == t.n && rs.n == rt.n, "edges must have as many sources as targets");
    check(2 * of.n + s.n + rs.n <= INT32_MAX, "a change must name less than 2^31 rows");
    SumChange found =
        sum_change(*made, loops, of.p, of.n, {s.p, t.p, s.n}, {rs.p, rt.p, rs.n}, marks);
    return std::make_tuple(given(std::move(found.targets)), given(std::move(found.plus_indptr)),
                           given(std::move(found.plus)), given(std::move(found.minus_indptr)),
                           given(std::move(found.minus)));
  }

  // The numbers of all lists, each once, in order of appearance.
  auto distinct(const Ins& lists) {
    marks.clear(made->rows());
    for (const In& list : lists) {
      const Numbers one = numbers(list, "rows", made->rows());
      for (int64_t i = 0; i < one.n; ++i) marks.add(one.p[i]);
    }
    return given(marks.take());
  }

  std::unique_ptr<ChangingRows> made;
  Marks marks;
};

auto rewrite_rows(const Out& table, const In& index, const In& rows, int64_t first, bool keep,
                  int threads) {
  const int64_t count = size(table, 0, "table"), bytes = size(table, 1, "table");
  const Numbers at = numbers(index, "index", count);
  uint8_t* const to = data<uint8_t>(table, "table", {count, bytes});
  const uint8_t* const from = data<uint8_t>(rows, "rows", {at.n, bytes});
  Rewritten made;
  {
    nb::gil_scoped_release release;
    made = rewrite(to, bytes, at.p, at.n, from, first, keep, threads);
  }
  return std::make_tuple(given(std::move(made.index)), given(std::move(made.old)));
}

void add(const Out& table, const In& index, const In& plus, const In& minus, const Out& out,
         int threads) {
  const int64_t count = size(table, 0, "table"), cols = size(table, 1, "table");
  const Numbers at = numbers(index, "index", count);
  int32_t* const to = data<int32_t>(table, "table", {count, cols});
  const int32_t* const more = data<int32_t>(plus, "plus", {at.n, cols});
  const int32_t* const less = data<int32_t>(minus, "minus", {at.n, cols});
  int32_t* const made = data<int32_t>(out, "out", {at.n, cols});
  nb::gil_scoped_release release;
  add_difference(to, cols, at.p, at.n, more, less, made, threads);
}

}  // namespace

void define_changing(nb::module_& m) {
  define(m, "rewrite_rows", &rewrite_rows);
  define(m, "add_difference", &add);
  nb::class_<Changing>(m, "ChangingRows")
      .def(nb::init<const In&, const In&, const OptionalIn&>(), nb::arg(), nb::arg(),
           nb::arg().none())
      .def_prop_ro("rows", [](const Changing& self) { return self.made->rows(); })
      .def_prop_ro("entries", [](const Changing& self) { return self.made->entries(); })
      .def("extend",
           [](Changing& self, int64_t more) {
             check(more >= 0 && more <= INT32_MAX - self.made->rows(),
                   "there must be less than 2^31 rows");
             self.made->extend(more);
           })
      .def("append", &Changing::append, nb::arg(), nb::arg(), nb::arg().none())
      .def("remove", &Changing::remove)
      .def("gather", &Changing::gather)
      .def("counts", &Changing::counts)
      .def("change", &Changing::change)
      .def("distinct", &Changing::distinct);
}

}  // namespace nodebits
