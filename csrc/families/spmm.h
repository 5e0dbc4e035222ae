// Neighbour sums of packed rows, unit weights. A block of V::kBytes packed bytes holds kPlanes = 8
// / B columns per byte; plane p, byte k is column k * kPlanes + p. Sums stay in the narrowest lane
// that cannot overflow:
//   u1: 3 rows in 2-bit lanes (one carry-save adder), 15 in nibbles, 255 in bytes
//   u2: 5 rows in nibbles, 85 in bytes        u4: 17 rows in bytes, 4369 in 16 bits       u8: 257
//   rows in 16 bits
// and only then widen. Zipping the planes puts columns in order before they become int32.
// Fields of any coding C are summed as its numbers, and a row's sums are corrected at its end.
#pragma once

#include "contract/codings.h"
#include "contract/products.h"
#include "contract/rows.h"
#include "isa/isa.h"

namespace nodebits {
namespace {

constexpr int64_t kPrefetchEdges = 24;
constexpr int64_t kPrefetchBytes = 1 << 18;  // a smaller table is in the cache after its first rows

// Where one row's edges lead: row starts, with the row `kPrefetchEdges` ahead requested on the way.
struct Rows {
  const int32_t* indices;
  const uint8_t* base;  // first byte of the block in row 0
  const uint8_t* table_end;
  int64_t stride;
  int64_t last_edge;  // of the whole graph
  int64_t span;       // bytes of the block, less one
  int tail_bytes;
  bool prefetch;

  const uint8_t* row(int64_t e) const {
    if (prefetch) {
      const int64_t ahead = e + kPrefetchEdges < last_edge ? e + kPrefetchEdges : last_edge;
      const uint8_t* next = base + static_cast<int64_t>(indices[ahead]) * stride;
      __builtin_prefetch(next);
      __builtin_prefetch(next + span);
    }
    return base + static_cast<int64_t>(indices[e]) * stride;
  }
};

template <class C, class V, int B, bool kTail>
inline V load_block(const Rows& r, const uint8_t* p) {
  if constexpr (kTail) {
    return C::template numbers<B>(V::load_tail(p, r.tail_bytes, r.table_end));
  } else {
    return C::template numbers<B>(V::load(p));
  }
}

// kPlanes byte vectors to columns in order: after the rounds, lane j of vector q is columns 16 *
// (kPlanes * j + q) ...
template <class V, int kPlanes>
inline void zip_planes(V* planes) {
  V next[kPlanes];
  for (int width = 1; width < kPlanes; width *= 2) {
    for (int i = 0; i < kPlanes / 2; ++i) {
      next[2 * i] = zip_lo8(planes[i], planes[i + kPlanes / 2]);
      next[2 * i + 1] = zip_hi8(planes[i], planes[i + kPlanes / 2]);
    }
    for (int i = 0; i < kPlanes; ++i) planes[i] = next[i];
  }
}

// `r` is a copy: its fields stay in registers, where writing the sums could change another's.
template <class C, class V, int B, int kBlocks, bool kTail>
inline void sum_edges(Rows r, int64_t e, int64_t end, int32_t* out) {
  constexpr int kPlanes = 8 / B;
  constexpr int64_t kColumns = V::kBytes * kPlanes;
  bool add = false;
  if constexpr (B == 8) {
    const V low = V::fill(0xff).template shr16<8>();
    while (e < end) {
      const int64_t stop = e + 257 < end ? e + 257 : end;
      V even[kBlocks], odd[kBlocks];
      for (int b = 0; b < kBlocks; ++b) even[b] = odd[b] = V::zero();
      for (; e < stop; ++e) {
        const uint8_t* p = r.row(e);
        for (int b = 0; b < kBlocks; ++b) {
          const V q = load_block<C, V, B, kTail>(r, p + b * V::kBytes);
          even[b] = add16(even[b], q & low);
          odd[b] = add16(odd[b], q.template shr16<8>());
        }
      }
      for (int b = 0; b < kBlocks; ++b) V::flush16(even[b], odd[b], out + b * kColumns, 16, add);
      add = true;
    }
  } else if constexpr (B == 4) {
    const V nibble = V::fill(0x0f);
    const V low = V::fill(0xff).template shr16<8>();
    while (e < end) {
      const int64_t far = e + 4369 < end ? e + 4369 : end;
      V wide[kBlocks][4];
      for (int b = 0; b < kBlocks; ++b) {
        for (int i = 0; i < 4; ++i) wide[b][i] = V::zero();
      }
      while (e < far) {
        const int64_t stop = e + 17 < far ? e + 17 : far;
        V plane[kBlocks][2];
        for (int b = 0; b < kBlocks; ++b) plane[b][0] = plane[b][1] = V::zero();
        for (; e < stop; ++e) {
          const uint8_t* p = r.row(e);
          for (int b = 0; b < kBlocks; ++b) {
            const V q = load_block<C, V, B, kTail>(r, p + b * V::kBytes);
            plane[b][0] = add8(plane[b][0], q & nibble);
            plane[b][1] = add8(plane[b][1], q.template shr16<4>() & nibble);
          }
        }
        for (int b = 0; b < kBlocks; ++b) {
          zip_planes<V, 2>(plane[b]);
          for (int i = 0; i < 2; ++i) {
            wide[b][2 * i] = add16(wide[b][2 * i], plane[b][i] & low);
            wide[b][2 * i + 1] = add16(wide[b][2 * i + 1], plane[b][i].template shr16<8>());
          }
        }
      }
      for (int b = 0; b < kBlocks; ++b) {
        V::flush16(wide[b][0], wide[b][1], out + b * kColumns, 32, add);
        V::flush16(wide[b][2], wide[b][3], out + b * kColumns + 16, 32, add);
      }
      add = true;
    }
  } else {
    static_assert(kBlocks == 1);
    constexpr int64_t kByteRows = B == 2 ? 85 : 255;
    const V nibble = V::fill(0x0f);
    const V pair = V::fill(0x33);
    while (e < end) {
      const int64_t far = e + kByteRows < end ? e + kByteRows : end;
      V plane[kPlanes];
      for (int i = 0; i < kPlanes; ++i) plane[i] = V::zero();
      while (e < far) {
        if constexpr (B == 2) {
          const int64_t stop = e + 5 < far ? e + 5 : far;
          V even = V::zero(), odd = V::zero();  // nibbles: planes 0 and 2, planes 1 and 3
          for (; e < stop; ++e) {
            const V q = load_block<C, V, B, kTail>(r, r.row(e));
            even = add8(even, q & pair);
            odd = add8(odd, q.template shr16<2>() & pair);
          }
          plane[0] = add8(plane[0], even & nibble);
          plane[2] = add8(plane[2], even.template shr16<4>() & nibble);
          plane[1] = add8(plane[1], odd & nibble);
          plane[3] = add8(plane[3], odd.template shr16<4>() & nibble);
        } else {
          const V bit = V::fill(0x55);
          const int64_t stop = e + 15 < far ? e + 15 : far;
          V quad[4];  // nibble i & 4: planes i and i + 4
          for (int i = 0; i < 4; ++i) quad[i] = V::zero();
          for (; e < stop; e += 3) {
            const V a = load_block<C, V, B, kTail>(r, r.row(e));
            const V b = e + 1 < stop ? load_block<C, V, B, kTail>(r, r.row(e + 1)) : V::zero();
            const V c = e + 2 < stop ? load_block<C, V, B, kTail>(r, r.row(e + 2)) : V::zero();
            const V ones = V::sum3(a, b, c), twos = V::carry3(a, b, c);
            const V even = V::select(bit, ones, twos.template shl16<1>());
            const V odd = V::select(bit, ones.template shr16<1>(), twos);
            quad[0] = add8(quad[0], even & pair);
            quad[2] = add8(quad[2], even.template shr16<2>() & pair);
            quad[1] = add8(quad[1], odd & pair);
            quad[3] = add8(quad[3], odd.template shr16<2>() & pair);
          }
          e = stop;
          for (int i = 0; i < 4; ++i) {
            plane[i] = add8(plane[i], quad[i] & nibble);
            plane[i + 4] = add8(plane[i + 4], quad[i].template shr16<4>() & nibble);
          }
        }
      }
      zip_planes<V, kPlanes>(plane);
      for (int i = 0; i < kPlanes; ++i) V::flush8(plane[i], out + 16 * i, 16 * kPlanes, add);
      add = true;
    }
  }
}

// What is done with the edges of a row; the walk over its columns is the same for other reductions.
struct Sums {
  template <class C, class V, int B, int kBlocks, bool kTail>
  __attribute__((always_inline)) static void edges(const Rows& r, int64_t e, int64_t end,
                                                   int32_t* out) {
    sum_edges<C, V, B, kBlocks, kTail>(r, e, end, out);
  }
};

// Columns from `column` on in blocks of kBlocks vectors; returns the first column left over.
template <class R, class C, class V, int B, int kBlocks>
inline int64_t sum_blocks(const SpmmArgs& a, const Tile& t, Rows& r, int64_t row, int64_t column) {
  constexpr int64_t kColumns = V::kBytes * (8 / B) * static_cast<int64_t>(kBlocks);
  for (; column + kColumns <= t.col_end; column += kColumns) {
    r.base = a.packed + column * B / 8;
    r.span = V::kBytes * kBlocks - 1;
    R::template edges<C, V, B, kBlocks, false>(
        r, a.indptr[row], a.indptr[row + 1],
        t.out + (row - t.row_begin) * t.stride + column - t.col_begin);
  }
  return column;
}

// As memcpy, where a level has nothing better for a few sums: a call takes as long as to copy them.
template <class I>
inline void copy_sums(I, const int32_t* sums, int64_t n, int32_t* out) {
  __builtin_memcpy(out, sums, static_cast<size_t>(n) * 4);
}

// The last, incomplete block goes through a buffer: its vectors are wider than the columns that
// exist.
template <class R, class C, class V, int B, class I>
inline void sum_tail(I isa, const SpmmArgs& a, const Tile& t, Rows& r, int64_t row,
                     int64_t column) {
  int32_t sums[V::kBytes * (8 / B)];
  r.base = a.packed + column * B / 8;
  r.tail_bytes = static_cast<int>(packed_row_bytes(t.col_end, B) - column * B / 8);
  r.span = r.tail_bytes - 1;
  R::template edges<C, V, B, 1, true>(r, a.indptr[row], a.indptr[row + 1], sums);
  copy_sums(isa, sums, t.col_end - column,
            t.out + (row - t.row_begin) * t.stride + column - t.col_begin);
}

// One row: blocks of the widest vectors as far as they go, the rest in narrower ones. A last block
// goes to the narrowest vector that holds it.
template <class R, class C, int B, bool kWidest, class I, class V, class... Narrower>
__attribute__((always_inline)) inline void sum_row(I isa, Vectors<V, Narrower...>,
                                                   const SpmmArgs& a, const Tile& t, Rows& r,
                                                   int64_t row, int64_t column) {
  if constexpr (kWidest && B == 8) column = sum_blocks<R, C, V, B, 4>(a, t, r, row, column);
  if constexpr (kWidest && B >= 4) column = sum_blocks<R, C, V, B, 2>(a, t, r, row, column);
  column = sum_blocks<R, C, V, B, 1>(a, t, r, row, column);
  if constexpr (sizeof...(Narrower) > 0) {
    if (packed_row_bytes(t.col_end, B) - column * B / 8 > V::kBytes / 2) {
      sum_tail<R, C, V, B>(isa, a, t, r, row, column);
    } else {
      sum_row<R, C, B, false>(isa, Vectors<Narrower...>{}, a, t, r, row, column);
    }
  } else {
    if (column < t.col_end) sum_tail<R, C, V, B>(isa, a, t, r, row, column);
  }
}

template <class R, class C, int B, class I>
void spmm_tile_as(I isa, const SpmmArgs& a, const Tile& t) {
  Rows r{a.indices,
         a.packed,
         a.packed + a.table_bytes,
         packed_row_bytes(a.num_cols, B),
         a.num_edges - 1,
         0,
         0,
         a.table_bytes > kPrefetchBytes};
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    if (a.indptr[row] == a.indptr[row + 1]) {
      __builtin_memset(t.out + (row - t.row_begin) * t.stride, 0,
                       static_cast<size_t>(t.col_end - t.col_begin) * 4);
      continue;
    }
    sum_row<R, C, B, true>(isa, typename I::ByteVectors{}, a, t, r, row, t.col_begin);
    if constexpr (C::kAbove != 0) {
      // Unsigned: sums of numbers may leave int32 where those of codes do not.
      const uint32_t above = static_cast<uint32_t>(a.indptr[row + 1] - a.indptr[row]) * C::kAbove;
      int32_t* out = t.out + (row - t.row_begin) * t.stride;
      for (int64_t c = 0; c < t.col_end - t.col_begin; ++c)
        out[c] = static_cast<int32_t>(static_cast<uint32_t>(out[c]) - above);
    }
  }
}

constexpr uint8_t kSpmmBits[9] = {0, 1, 2, 4, 4, 8, 8, 8, 8};

template <class I>
void spmm_tile(I isa, const SpmmArgs& a, const Tile& t) {
  with_coding(a.coding, [&]<class C>() {
    const auto in_bits = [&]<int B>() {
      if constexpr (C::has(B)) spmm_tile_as<Sums, C, B>(isa, a, t);
    };
    switch (a.bits) {
      case 1:
        return in_bits.template operator()<1>();
      case 2:
        return in_bits.template operator()<2>();
      case 4:
        return in_bits.template operator()<4>();
      default:
        return in_bits.template operator()<8>();
    }
  });
}

}  // namespace
}  // namespace nodebits
