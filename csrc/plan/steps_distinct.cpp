// Rows of edges of which few differ: a table of them, and the row of every edge.
#include <cstring>

#include "plan/finite.h"
#include "plan/program.h"
#include "run/distinct.h"
#include "run/schedule.h"

namespace nodebits::plan {
namespace {

// Below this many edges for each row of a table, nothing is won by one.
constexpr int64_t kLeastShared = 4;

// Calls to(i) for every i below `count`.
template <class F>
void each(const Frame& f, int64_t count, int64_t work, const F& to) {
  split_rows(count, work, f.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to(i);
  });
}

// The row of every edge.
template <class T, class F>
void fill(Frame& f, int out, DType dtype, int64_t edges, int64_t rows, const F& place) {
  Value& made = f.make(out, dtype, {edges});
  T* to = made.as<T>();
  each(f, edges, 1, [&](int64_t e) { to[e] = static_cast<T>(place(e)); });
  made.below = rows;
}

StepPtr distinct_rows(Reader& r) {
  const In features = r.value(), perm = r.optional();
  const bool sorted = r.flag();
  const In more = r.at_end() ? In{} : r.optional();  // rows behind them, which stay as they are
  const int out_rows = r.out(), out_places = r.out(), out_sources = r.out();
  if (more && sorted) r.fail("rows behind others have no order of edges");
  // As a rule few rows are alike, and then these are the same values.
  if (!more) r.alias(out_rows, features);
  if (perm) r.alias(out_places, perm);
  return step([=](Frame& f) {
    const Value given = f.expect(features, "features", DType::f32, 2);
    const int64_t count = given.shape[0], cols = given.shape[1];
    const int64_t bytes = cols * bytes_of(DType::f32);
    const int64_t behind = more ? f.expect(more, "more", DType::f32, 2).shape[0] : 0;
    if (more) data<float>(f.ref(more), "more", {behind, cols});
    const int64_t edges = perm ? f.expect(perm, "perm", DType::i64, 1).shape[0] : count + behind;
    if (perm) f.check_below(perm, count + behind, "perm", "distinct_rows");
    const int64_t* order = perm ? f[perm].as<int64_t>() : nullptr;
    const uint8_t* rows = given.as<uint8_t>();
    const int64_t most = bytes == 0 ? 0 : std::min(kMostDistinct, count / kLeastShared);
    uint8_t* numbers = f.scratch<uint8_t>(count);
    int64_t firsts[kMostDistinct];
    const int64_t found =
        most == 0 ? -1 : number_distinct(rows, count, bytes, most, f.threads, numbers, firsts);
    // Whoever refuses what is not finite says where it is.
    bool alike = found >= 0;
    for (int64_t i = 0; i < found && alike; ++i)
      alike = all_finite(given.as<float>() + firsts[i] * cols, cols, 1);
    const bool in_order = !alike && sorted;
    const int64_t kept = alike ? found : in_order ? edges : count;
    if (alike || more || (in_order && perm)) {
      uint8_t* table = f.make(out_rows, DType::f32, {kept + behind, cols}).as<uint8_t>();
      const uint8_t* last = more ? f[more].as<uint8_t>() : nullptr;
      each(f, kept + behind, bytes / 8, [&](int64_t i) {
        const uint8_t* from = i >= kept  ? last + (i - kept) * bytes
                              : alike    ? rows + firsts[i] * bytes
                              : in_order ? rows + order[i] * bytes
                                         : rows + i * bytes;
        std::memcpy(table + i * bytes, from, static_cast<size_t>(bytes));
      });
    } else {
      f.alias(out_rows, features, 2, given.shape);
    }
    const auto place = [&](int64_t e) -> int64_t {
      const int64_t at = order == nullptr ? e : order[e];
      if (!alike) return in_order ? e : at;
      return at < count ? numbers[at] : found + at - count;
    };
    if (perm && !alike && !in_order) {
      f.alias(out_places, perm, 1, &edges);
    } else if (f.wanted(out_places)) {
      fill<int64_t>(f, out_places, DType::i64, edges, kept + behind, place);
    }
    if (f.wanted(out_sources))
      fill<int32_t>(f, out_sources, DType::i32, edges, kept + behind, place);
  });
}

}  // namespace

Operations distinct_operations() { return {{"distinct_rows", distinct_rows}}; }

}  // namespace nodebits::plan
