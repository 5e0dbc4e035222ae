// Two vectors as one of twice their width, for sums of segments: a row's edges are then read once
// for both. Of the members of Vec16 it has those that sums of bytes take.
#pragma once

#include <cstdint>

namespace nodebits {
namespace {

template <class V>
struct Pair {
  static constexpr int kBytes = 2 * V::kBytes;
  V low, high;

  static Pair zero() { return {V::zero(), V::zero()}; }
  static Pair load(const uint8_t* p) { return {V::load(p), V::load(p + V::kBytes)}; }
  // More than half of the bytes exist.
  static Pair load_tail(const uint8_t* p, int n, const uint8_t* table_end) {
    return {V::load(p), V::load_tail(p + V::kBytes, n - V::kBytes, table_end)};
  }
  template <int kRows, bool kTail, class I>
  static Pair load_rows(const uint8_t* base, int64_t stride, const I* i, int64_t /*n*/, int bytes,
                        const uint8_t* table_end) {
    static_assert(kRows == 1);
    const uint8_t* p = base + static_cast<int64_t>(i[0]) * stride;
    if constexpr (kTail) return load_tail(p, bytes, table_end);
    return load(p);
  }
  void store(uint8_t* p) const {
    low.store(p);
    high.store(p + V::kBytes);
  }
  friend Pair add32(Pair a, Pair b) { return {add32(a.low, b.low), add32(a.high, b.high)}; }
  friend Pair add64(Pair a, Pair b) { return {add64(a.low, b.low), add64(a.high, b.high)}; }
  friend Pair sub64(Pair a, Pair b) { return {sub64(a.low, b.low), sub64(a.high, b.high)}; }
  template <int N>
  Pair shl64() const {
    return {low.template shl64<N>(), high.template shl64<N>()};
  }
  template <int B>
  Pair odd() const {
    return {low.template odd<B>(), high.template odd<B>()};
  }
};

}  // namespace
}  // namespace nodebits
