// Neighbour sums from edges grouped by blocks of sources (edge_blocks.h): all rows of a group visit
// one block of the table, which stays in the core's own cache, before any visits the next. A row's
// share of a block, its segment, is added to the row's accumulator, 16-bit sums that wait in the
// cache beside the block, or 32-bit ones for rows that could pass 16 bits.
//
// Fields are summed in place. The total of packed words, as 64-bit integers, and the total of every
// second field determine the other fields: nothing is masked per row but that half,
//   even = sum(q) - (odd << B),   odd = sum((q >> B) & every second field),
// exact as long as 2B-bit digits hold the sums. The digits of even and odd are split again in the
// same way, until sums are 16 bits wide. Rows narrower than a register share it, several edges at a
// time.
//
// The order of columns in an accumulator is private to the level; columns_of() learns it by summing
// unit rows.
#pragma once

#include "contract/products.h"
#include "families/pack.h"
#include "isa/isa.h"

namespace nodebits {
namespace {

// Sum of fields of B bits as digits of 2B bits, those in even places and those in odd places.
template <class V, int B>
struct Split {
  V all = V::zero(), odd_sum = V::zero();
  void add(V q) {
    all = add64(all, q);
    odd_sum = add64(odd_sum, q.template odd<B>());
  }
  V even() const { return sub64(all, odd_sum.template shl64<B>()); }
  V odd() const { return odd_sum; }
};

// The rows of one block of sources, cut to one block of columns; kRows of them fill a register.
template <class V, int kRows, bool kTail>
struct BlockRows {
  const uint8_t* base;
  int64_t stride;
  int bytes;
  const uint8_t* table_end;

  V full(const uint16_t* i) const {
    return V::template load_rows<kRows, kTail>(base, stride, i, kRows, bytes, table_end);
  }
  V part(const uint16_t* i, int64_t n) const {
    return V::template load_rows<kRows, kTail>(base, stride, i, n, bytes, table_end);
  }
};

// Calls f(register) for n edges; all but the last register hold kRows of them.
template <int kRows, class R, class F>
__attribute__((always_inline)) inline void each_register(const R& rows, const uint16_t* i,
                                                         int64_t n, const F& f) {
  int64_t e = 0;
  for (; e + 8 * kRows <= n; e += 8 * kRows) {
    unrolled<8>([&]<int k>() __attribute__((always_inline)) { f(rows.full(i + e + k * kRows)); });
  }
  for (; e + kRows <= n; e += kRows) f(rows.full(i + e));
  if (kRows > 1 && e < n) f(rows.part(i + e, n - e));
}

// Halves of kRows rows added up, registers paired so that none is half empty; returns how many are
// left.
template <class V, int kRows>
inline int fold(V* x, int n) {
  if constexpr (kRows >= 2) {
    for (int k = 0; k < n; k += 2) x[k / 2] = fold_halves(x[k], k + 1 < n ? x[k + 1] : V::zero());
    n = (n + 1) / 2;
  }
  if constexpr (kRows >= 4) {
    for (int k = 0; k < n; k += 2) x[k / 2] = fold_pairs(x[k], k + 1 < n ? x[k + 1] : V::zero());
    n = (n + 1) / 2;
  }
  return n;
}

template <int B, int kRows>
constexpr int kSums16 = B == 8   ? (kRows == 1 ? 2 : 1)
                        : B == 4 ? (4 / kRows)
                        : B == 2 ? (kRows <= 4 ? 8 / kRows : 1)
                                 : 16 / kRows;

// 16-bit sums of at most kSegmentEdges<B> edges.
template <int B>
constexpr int64_t kSegmentEdges = B == 8   ? 257
                                  : B == 4 ? 4369
                                  : B == 2 ? 85
                                           : 255;

template <class V, int B, int kRows, class R>
inline void sum16(const R& rows, const uint16_t* i, int64_t n, V* sums) {
  if constexpr (B == 8) {
    Split<V, 8> words;
    each_register<kRows>(rows, i, n, [&](V q) { words.add(q); });
    V w[2] = {words.even(), words.odd()};
    fold<V, kRows>(w, 2);
    for (int k = 0; k < kSums16<B, kRows>; ++k) sums[k] = w[k];
  } else if constexpr (B == 4) {
    Split<V, 8> even, odd;
    while (n > 0) {
      const int64_t now = n < 17 * kRows ? n : 16 * kRows;
      Split<V, 4> bytes;
      each_register<kRows>(rows, i, now, [&](V q) { bytes.add(q); });
      even.add(bytes.even());
      odd.add(bytes.odd());
      i += now;
      n -= now;
    }
    V w[4] = {even.even(), even.odd(), odd.even(), odd.odd()};
    fold<V, kRows>(w, 4);
    for (int k = 0; k < kSums16<B, kRows>; ++k) sums[k] = w[k];
  } else {
    constexpr int kPlanes = 8 / B;
    V planes[kPlanes];
    if constexpr (B == 2) {
      Split<V, 4> even, odd;
      while (n > 0) {
        const int64_t now = n < 5 * kRows ? n : 5 * kRows;
        Split<V, 2> nibbles;
        if (now == 5 * kRows) {
          unrolled<5>([&]<int k>() __attribute__((always_inline)) {
            nibbles.add(rows.full(i + k * kRows));
          });
        } else {
          each_register<kRows>(rows, i, now, [&](V q) { nibbles.add(q); });
        }
        even.add(nibbles.even());
        odd.add(nibbles.odd());
        i += now;
        n -= now;
      }
      planes[0] = even.even(), planes[1] = even.odd();
      planes[2] = odd.even(), planes[3] = odd.odd();
    } else {
      // Three rows of bits make a carry and a sum bit each: 2-bit digits, five times as many fit
      // nibbles.
      const V bit = V::fill(0x55);
      Split<V, 4> quad[4];
      while (n > 0) {
        const int64_t now = n < 15 * kRows ? n : 15 * kRows;
        Split<V, 2> even, odd;
        int64_t e = 0;
        const auto three = [&](V a, V b, V c) __attribute__((always_inline)) {
          const V ones = V::sum3(a, b, c), twos = V::carry3(a, b, c);
          even.add(V::select(bit, ones, twos.template shl16<1>()));
          odd.add(V::select(bit, ones.template shr16<1>(), twos));
        };
        for (; e + 3 * kRows <= now; e += 3 * kRows) {
          three(rows.full(i + e), rows.full(i + e + kRows), rows.full(i + e + 2 * kRows));
        }
        V rest[2] = {V::zero(), V::zero()};
        if (e < now) {
          int k = 0;
          each_register<kRows>(rows, i + e, now - e < 2 * kRows ? now - e : 2 * kRows,
                               [&](V q) { rest[k++] = q; });
          e += 2 * kRows;
          three(rest[0], rest[1], e < now ? rows.part(i + e, now - e) : V::zero());
        }
        quad[0].add(even.even()), quad[1].add(even.odd());
        quad[2].add(odd.even()), quad[3].add(odd.odd());
        i += now;
        n -= now;
      }
      for (int k = 0; k < 4; ++k) planes[2 * k] = quad[k].even(), planes[2 * k + 1] = quad[k].odd();
    }
    const int left = fold<V, kRows>(planes, kPlanes);
    for (int k = 0; k < left; ++k) {
      Split<V, 8> words;
      words.add(planes[k]);
      sums[2 * k] = words.even(), sums[2 * k + 1] = words.odd();
    }
  }
}

template <class V, int B, int kRows, bool kTail, bool kWide>
inline void add_segment(const BlockRows<V, kRows, kTail>& rows, const uint16_t* i, int64_t n,
                        uint8_t* acc) {
  constexpr int kSums = kSums16<B, kRows>;
  while (n > 0) {
    const int64_t now = n < kSegmentEdges<B> ? n : kSegmentEdges<B>;
    V sums[kSums < 2 ? 2 : kSums];
    sum16<V, B, kRows>(rows, i, now, sums);
    if constexpr (kWide) {
      for (int k = 0; k < kSums; ++k) {
        Split<V, 16> words;
        words.add(sums[k]);
        uint8_t* to = acc + 2 * k * V::kBytes;
        add32(V::load(to), words.even()).store(to);
        add32(V::load(to + V::kBytes), words.odd()).store(to + V::kBytes);
      }
    } else {
      for (int k = 0; k < kSums; ++k) {
        uint8_t* to = acc + k * V::kBytes;
        add64(V::load(to), sums[k]).store(to);
      }
    }
    i += now;
    n -= now;
  }
}

// One step of a register that kRows rows share, or of a row that takes several.
template <class V, int B, int kRows, bool kTail, bool kWide>
inline void sum_segments_as(const SegmentArgs& a, int64_t byte, int bytes, int64_t acc_byte) {
  const BlockRows<V, kRows, kTail> rows{a.table + byte, a.stride, bytes, a.table_end};
  const uint16_t* i = a.sources;
  for (int64_t r = 0; r < a.rows; ++r) {
    add_segment<V, B, kRows, kTail, kWide>(rows, i, a.counts[r],
                                           a.acc + r * a.acc_stride + acc_byte);
    i += a.counts[r];
  }
}

// The bytes of a block of columns from `byte` on, in vectors of V and then in narrower ones.
template <int B, bool kWide, class V, class... Narrower>
__attribute__((always_inline)) inline void sum_segments_in(Vectors<V, Narrower...>,
                                                           const SegmentArgs& a, int64_t byte,
                                                           int64_t acc) {
  constexpr int64_t kAcc = (kWide ? 2 : 1) * kSums16<B, 1> * V::kBytes;
  for (; a.bytes - byte >= V::kBytes; byte += V::kBytes, acc += kAcc)
    sum_segments_as<V, B, 1, false, kWide>(a, byte, V::kBytes, acc);
  const int left = static_cast<int>(a.bytes - byte);
  if constexpr (sizeof...(Narrower) > 0) {
    if (left > V::kBytes / 2) {
      sum_segments_as<V, B, 1, true, kWide>(a, byte, left, acc);
    } else {
      sum_segments_in<B, kWide>(Vectors<Narrower...>{}, a, byte, acc);
    }
  } else {
    if (left > 0) sum_segments_as<V, B, 1, true, kWide>(a, byte, left, acc);
  }
}

// A register of 64 bytes that narrower blocks share, whatever its vector type: sums of all its
// columns take as many bytes in each.
template <int B, bool kWide, class V, class... Narrower>
__attribute__((always_inline)) inline void sum_shared_segments(Vectors<V, Narrower...>,
                                                               const SegmentArgs& a) {
  static_assert(V::kBytes == 64);
  if constexpr (B >= 4) {
    if (a.bytes == 64) return sum_segments_as<V, B, 1, false, kWide>(a, 0, 64, 0);
    if (a.bytes > 32) return sum_segments_as<V, B, 1, true, kWide>(a, 0, a.bytes, 0);
  }
  if constexpr (B >= 2) {
    if (a.bytes == 32) return sum_segments_as<V, B, 2, false, kWide>(a, 0, 32, 0);
    if (a.bytes > 16) return sum_segments_as<V, B, 2, true, kWide>(a, 0, a.bytes, 0);
  }
  if (a.bytes == 16) return sum_segments_as<V, B, 4, false, kWide>(a, 0, 16, 0);
  sum_segments_as<V, B, 4, true, kWide>(a, 0, a.bytes, 0);
}

// Vectors for the segments of rows of B bits.
template <int B, class I>
constexpr auto segment_vectors(I) {
  return typename I::ByteVectors{};
}

template <int B, bool kWide, class I>
void sum_segments_of(I isa, const SegmentArgs& a) {
  const auto vectors = segment_vectors<B>(isa);
  if constexpr (I::kSharedRegister) {
    sum_shared_segments<B, kWide>(vectors, a);
  } else {
    sum_segments_in<B, kWide>(vectors, a, 0, 0);
  }
}

template <class I>
int64_t sum_segments(I isa, const SegmentArgs& a) {
  const auto of = [&]<int B>() {
    if (a.wide) {
      sum_segments_of<B, true>(isa, a);
    } else if constexpr (B < 8) {
      sum_segments_of<B, false>(isa, a);
    }
  };
  switch (a.bits) {
    case 1:
      of.template operator()<1>();
      break;
    case 2:
      of.template operator()<2>();
      break;
    case 4:
      of.template operator()<4>();
      break;
    default:
      of.template operator()<8>();
      break;
  }
  int64_t edges = 0;
  for (int64_t r = 0; r < a.rows; ++r) edges += a.counts[r];
  return edges;
}

// out[c] = the accumulator's element at[c].
template <class I>
void read_sums(I, const uint8_t* acc, bool wide, const int32_t* at, int64_t columns, int32_t* out) {
  for (int64_t c = 0; c < columns; ++c) {
    if (wide) {
      __builtin_memcpy(out + c, acc + 4 * static_cast<int64_t>(at[c]), 4);
    } else {
      uint16_t sum;
      __builtin_memcpy(&sum, acc + 2 * static_cast<int64_t>(at[c]), 2);
      out[c] = sum;
    }
  }
}

}  // namespace
}  // namespace nodebits
