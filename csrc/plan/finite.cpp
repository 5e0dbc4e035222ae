// One pass without branches; another one only where something is to be refused.
#include "plan/finite.h"

#include <atomic>
#include <cmath>
#include <cstring>

#include "run/schedule.h"

namespace nodebits::plan {
namespace {

bool finite_span(const float* x, int64_t count) {
  // A magnitude above the largest number carries into the sign: an addition less than to compare,
  // and no level lacks it.
  uint32_t carried = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t word;
    std::memcpy(&word, x + i, 4);
    carried |= (word & 0x7fffffffu) + 0x00800000u;
  }
  return carried >> 31 == 0;
}

std::string written(float v) { return std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf"; }

}  // namespace

bool all_finite(const float* x, int64_t count, int threads) {
  std::atomic<bool> finite{true};
  split_rows(count, 1, threads, [&](int64_t begin, int64_t end) {
    if (!finite_span(x + begin, end - begin)) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

void check_finite(const Value& x, const char* what, int threads) {
  const float* values = x.as<float>();
  const int64_t n = x.count();
  if (all_finite(values, n, threads)) return;
  int64_t bad = 0, first = -1;
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(values[i])) continue;
    if (first < 0) first = i;
    ++bad;
  }
  std::string position;
  int64_t rest = first;
  for (int d = x.ndim - 1; d >= 0; --d) {
    position = std::to_string(rest % x.shape[d]) + (position.empty() ? "" : ", ") + position;
    rest /= x.shape[d];
  }
  throw PlanError("NonFiniteError", std::string(what) + " has " + std::to_string(bad) +
                                        " value(s) that are NaN or infinite, the first (" +
                                        written(values[first]) + ") at [" + position +
                                        "]: clean the tensor before quantizing it");
}

}  // namespace nodebits::plan
