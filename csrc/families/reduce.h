// What else than a sum the edges of a row may give: the largest or smallest code of every column,
// or the sum of squared codes. Fields stay where they are in their byte until the row's end, for to
// compare them they need not move. Squares are taken of two columns at a time, in 16 bits:
//   u2: 7281 rows in 16 bits    u4: 291 rows in 16 bits    u8: 257 rows, low and high bytes apart
// and a one-bit code is its own square.
#pragma once

#include "families/pack.h"
#include "families/spmm.h"

namespace nodebits {
namespace {

template <bool kLargest, class V>
inline V extreme8(V one, V other) {
  typedef uint8_t Bytes __attribute__((vector_size(V::kBytes)));
  const Bytes a = __builtin_bit_cast(Bytes, one), b = __builtin_bit_cast(Bytes, other);
  if constexpr (kLargest) return __builtin_bit_cast(V, a > b ? a : b);
  return __builtin_bit_cast(V, a < b ? a : b);
}

template <class V>
inline V squares16(V x) {
  typedef uint16_t Words __attribute__((vector_size(V::kBytes)));
  const Words w = __builtin_bit_cast(Words, x);
  return __builtin_bit_cast(V, w * w);
}

// Field p of every byte, moved to its low end.
template <int B, int p, class V>
inline V field(V q) {
  if constexpr (B == 8) return q;
  const V mask = V::fill((1 << B) - 1);
  if constexpr (p == 0) return q & mask;
  return q.template shr16<p * B>() & mask;
}

template <bool kLargest>
struct Extremes {
  template <class C, class V, int B, int kBlocks, bool kTail>
  __attribute__((always_inline)) static void edges(Rows r, int64_t e, int64_t end, int32_t* out) {
    constexpr int kPlanes = 8 / B;
    constexpr int kKept = B == 1 ? 1 : kPlanes;  // one-bit fields are compared all at once
    const auto kept = [](V q, int p) __attribute__((always_inline)) {
      return kKept == 1 ? q : q & V::fill(static_cast<uint8_t>(((1 << B) - 1) << p * B));
    };
    V best[kBlocks][kKept];
    const uint8_t* first = r.row(e);
    for (int b = 0; b < kBlocks; ++b) {
      const V q = load_block<C, V, B, kTail>(r, first + b * V::kBytes);
      for (int p = 0; p < kKept; ++p) best[b][p] = kept(q, p);
    }
    for (++e; e < end; ++e) {
      const uint8_t* row = r.row(e);
      for (int b = 0; b < kBlocks; ++b) {
        const V q = load_block<C, V, B, kTail>(r, row + b * V::kBytes);
        if constexpr (B == 1) {
          best[b][0] = kLargest ? V::select(q, q, best[b][0]) : q & best[b][0];
        } else {
          for (int p = 0; p < kKept; ++p) best[b][p] = extreme8<kLargest>(best[b][p], kept(q, p));
        }
      }
    }
    for (int b = 0; b < kBlocks; ++b) {
      V planes[kPlanes];
      unrolled<kPlanes>([&]<int p>() __attribute__((always_inline)) {
        planes[p] = field<B, p>(best[b][kKept == 1 ? 0 : p]);
      });
      zip_planes<V, kPlanes>(planes);
      int32_t* to = out + b * V::kBytes * kPlanes;
      for (int i = 0; i < kPlanes; ++i) V::flush8(planes[i], to + 16 * i, 16 * kPlanes, false);
    }
  }
};

struct Squares {
  template <class C, class V, int B, int kBlocks, bool kTail>
  __attribute__((always_inline)) static void edges(Rows r, int64_t e, int64_t end, int32_t* out) {
    for (int b = 0; b < kBlocks; ++b) {
      block<C, V, B, kTail>(r, e, end, out + b * V::kBytes * (8 / B));
      r.base += V::kBytes;
    }
  }

 private:
  template <class C, class V, int B, bool kTail>
  static void block(const Rows& r, int64_t e, int64_t end, int32_t* out) {
    if constexpr (B == 1) {
      sum_edges<C, V, B, 1, kTail>(r, e, end, out);
    } else if constexpr (B == 8) {
      bytes<C, V, kTail>(r, e, end, out);
    } else {
      constexpr int kPlanes = 8 / B;
      constexpr int64_t kRows = B == 4 ? 291 : 7281;
      const V low = V::fill(0xff).template shr16<8>();
      for (bool add = false; e < end; add = true) {
        const int64_t stop = e + kRows < end ? e + kRows : end;
        V sums[2 * kPlanes];
        for (V& sum : sums) sum = V::zero();
        for (; e < stop; ++e) {
          const V q = load_block<C, V, B, kTail>(r, r.row(e));
          V planes[kPlanes];
          unrolled<kPlanes>([&]<int p>()
                                __attribute__((always_inline)) { planes[p] = field<B, p>(q); });
          zip_planes<V, kPlanes>(planes);
          for (int i = 0; i < kPlanes; ++i) {
            sums[2 * i] = add16(sums[2 * i], squares16(planes[i] & low));
            sums[2 * i + 1] = add16(sums[2 * i + 1], squares16(planes[i].template shr16<8>()));
          }
        }
        for (int i = 0; i < kPlanes; ++i)
          V::flush16(sums[2 * i], sums[2 * i + 1], out + 16 * i, 16 * kPlanes, add);
      }
    }
  }

  template <class C, class V, bool kTail>
  static void bytes(const Rows& r, int64_t e, int64_t end, int32_t* out) {
    const V low = V::fill(0xff).template shr16<8>();
    int32_t high_sums[V::kBytes];
    for (bool add = false; e < end; add = true) {
      const int64_t stop = e + 257 < end ? e + 257 : end;
      V lows[2] = {V::zero(), V::zero()}, highs[2] = {V::zero(), V::zero()};
      for (; e < stop; ++e) {
        const V q = load_block<C, V, 8, kTail>(r, r.row(e));
        const V squares[2] = {squares16(q & low), squares16(q.template shr16<8>())};
        for (int i = 0; i < 2; ++i) {
          lows[i] = add16(lows[i], squares[i] & low);
          highs[i] = add16(highs[i], squares[i].template shr16<8>());
        }
      }
      V::flush16(lows[0], lows[1], out, 16, add);
      V::flush16(highs[0], highs[1], high_sums, 16, add);
    }
    for (int c = 0; c < V::kBytes; ++c) out[c] += high_sums[c] * 256;
  }
};

// Only unsigned fields: of other numbers the squares are others.
template <class R, class I>
void reduce_tile_as(I isa, const SpmmArgs& a, const Tile& t) {
  switch (a.bits) {
    case 1:
      return spmm_tile_as<R, Coding<0>, 1>(isa, a, t);
    case 2:
      return spmm_tile_as<R, Coding<0>, 2>(isa, a, t);
    case 4:
      return spmm_tile_as<R, Coding<0>, 4>(isa, a, t);
    default:
      return spmm_tile_as<R, Coding<0>, 8>(isa, a, t);
  }
}

template <class I>
void reduce_tile(I isa, const SpmmArgs& a, const Tile& t) {
  switch (a.reduce) {
    case Reduce::kLargest:
      return reduce_tile_as<Extremes<true>>(isa, a, t);
    case Reduce::kSmallest:
      return reduce_tile_as<Extremes<false>>(isa, a, t);
    default:
      return reduce_tile_as<Squares>(isa, a, t);
  }
}

}  // namespace
}  // namespace nodebits
