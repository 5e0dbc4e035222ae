// Codes of two rows meet at an edge. A row is unpacked into bytes, which stay in the cache next to
// the core, and loops over its columns do the rest: they are the same at every level, and the
// compiler makes vectors of them. Everything is an integer until the row's end.
#pragma once

#include "contract/pairs.h"
#include "families/pack.h"

namespace nodebits {
namespace {

// Row `row` as bytes: where it lies, or unpacked into `room`.
template <class I>
inline const uint8_t* row_codes(I isa, const FieldRows& rows, int64_t row, int64_t n,
                                uint8_t* room) {
  const uint8_t* from = rows.packed + row * packed_row_bytes(n, rows.bits);
  if (rows.bits == 8) return from;
  with_bits(rows.bits, [&]<int B>() { unpack_codes<B>(isa, from, n, room); });
  return room;
}

// Asks for the row of a later edge before it is read.
inline void fetch_ahead(const FieldRows& rows, const int32_t* indices, int64_t e, int64_t end,
                        int64_t n) {
  constexpr int64_t kAhead = 8;
  if (e + kAhead >= end) return;
  const int64_t bytes = packed_row_bytes(n, rows.bits);
  const uint8_t* next = rows.packed + indices[e + kAhead] * bytes;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + b);
}

struct ScoreSums {
  int32_t all, linear;
};

// sum w * max(u + t - floor, 0), and sum w * u. `moved` is t - floor.
inline ScoreSums rectified_product(const uint8_t* u, const int16_t* moved, const int16_t* vector,
                                   int64_t n) {
  int32_t all = 0, linear = 0;
  for (int64_t c = 0; c < n; ++c) {
    const int16_t code = u[c];
    int16_t sum = static_cast<int16_t>(code + moved[c]);
    sum = sum > 0 ? sum : int16_t{0};
    all += sum * vector[c];
    linear += code * vector[c];
  }
  return {all, linear};
}

// sum u * t, and sum u.
inline ScoreSums dot_product(const uint8_t* u, const int16_t* moved, int64_t n) {
  int32_t all = 0, linear = 0;
  for (int64_t c = 0; c < n; ++c) {
    const int16_t code = u[c];
    all += code * moved[c];
    linear += code;
  }
  return {all, linear};
}

// Scores [edges of the rows, heads].
template <class I>
void pair_scores(I isa, const ScoreArgs& a, int64_t begin, int64_t end, const PairRoom& room,
                 float* scores) {
  const int64_t width = a.num_cols / a.heads, last = a.indptr[end];
  const bool dot = a.vector == nullptr;
  if (!dot) {
    for (int64_t c = 0; c < a.num_cols; ++c) room.vector[c] = static_cast<int16_t>(a.vector[c]);
  }
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t* mine = row_codes(isa, a.target, i, a.num_cols, room.other);
    for (int64_t c = 0; c < a.num_cols; ++c)
      room.moved[c] = static_cast<int16_t>(dot ? mine[c] : mine[c] - a.floor[c]);
    for (int64_t e = a.indptr[i]; e < a.indptr[i + 1]; ++e) {
      fetch_ahead(a.source, a.indices, e, last, a.num_cols);
      const uint8_t* u = row_codes(isa, a.source, a.indices[e], a.num_cols, room.source);
      for (int64_t h = 0; h < a.heads; ++h, ++scores) {
        const int64_t at = h * width;
        const ScoreSums s =
            dot ? dot_product(u + at, room.moved + at, width)
                : rectified_product(u + at, room.moved + at, room.vector + at, width);
        const float linear = static_cast<float>(s.linear) * a.source_factor[h];
        *scores = static_cast<float>(s.all) * a.factor[h] + linear;
      }
    }
  }
}

// The result of a row: `weight` is one number, or as many as there are columns.
inline void finish_pairs(const PairSumArgs& a, int64_t row, const int32_t* sums, float degree,
                         const int32_t* gates) {
  float* y = a.out + row * a.num_cols;
  for (int64_t c = 0; c < a.num_cols; ++c) {
    const float weight = gates == nullptr ? degree : static_cast<float>(gates[c]);
    y[c] = (static_cast<float>(sums[c]) - weight * a.zero_point[c]) * a.scale[c];
  }
}

// Sums of max(u + v - floor, 0), for kEdges edges in 16 bits: each is 510 at most.
template <class I>
void rectified_sum(I isa, const PairSumArgs& a, int64_t begin, int64_t end, const PairRoom& room) {
  constexpr int64_t kEdges = 64;
  const int64_t n = a.num_cols, last = a.indptr[end];
  int16_t* floor = room.vector;
  int16_t* some = room.moved;
  for (int64_t c = 0; c < n; ++c) floor[c] = static_cast<int16_t>(a.floor[c]);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = a.indptr[i], stop = a.indptr[i + 1];
    for (int64_t c = 0; c < n; ++c) room.sums[c] = 0;
    for (int64_t e = first; e < stop;) {
      for (int64_t c = 0; c < n; ++c) some[c] = 0;
      for (const int64_t part = stop - e < kEdges ? stop : e + kEdges; e < part; ++e) {
        fetch_ahead(a.source, a.indices, e, last, n);
        const uint8_t* u = row_codes(isa, a.source, a.indices[e], n, room.source);
        const uint8_t* v =
            row_codes(isa, a.other, a.order == nullptr ? e : a.order[e], n, room.other);
        for (int64_t c = 0; c < n; ++c) {
          int16_t sum = static_cast<int16_t>(u[c] + v[c] - floor[c]);
          sum = sum > 0 ? sum : int16_t{0};
          some[c] = static_cast<int16_t>(some[c] + sum);
        }
      }
      for (int64_t c = 0; c < n; ++c) room.sums[c] += some[c];
    }
    finish_pairs(a, i, room.sums, static_cast<float>(stop - first), nullptr);
  }
}

// Gates of sums of two codes; up to 32 of them are looked up in registers.
inline void look_up(const uint8_t* table, bool small, const uint8_t* u, const uint8_t* t, int64_t n,
                    uint8_t* gate) {
  int64_t c = 0;
#if !defined(__clang__)  // which has no shuffle by a variable
  if (small) {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    Bytes low, high;
    __builtin_memcpy(&low, table, 16);
    __builtin_memcpy(&high, table + 16, 16);
    for (; c + 16 <= n; c += 16) {
      Bytes one, other;
      __builtin_memcpy(&one, u + c, 16);
      __builtin_memcpy(&other, t + c, 16);
      const Bytes at = one + other;
      const Bytes made =
          at > 15 ? __builtin_shuffle(high, at & 15) : __builtin_shuffle(low, at & 15);
      __builtin_memcpy(gate + c, &made, 16);
    }
  }
#endif
  (void)small;
  for (; c < n; ++c) gate[c] = table[u[c] + t[c]];
}

// Sums of gate * value, and of the gates themselves, which the values' zero point is weighed by.
template <class I>
void gated_sum(I isa, const PairSumArgs& a, int64_t begin, int64_t end, const PairRoom& room) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  const bool small = a.source.bits <= 4 && a.other.bits <= 4;
  uint8_t* gate = room.other;
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t* mine = row_codes(isa, a.other, i, n, room.other);
    uint8_t* kept = reinterpret_cast<uint8_t*>(room.moved);
    for (int64_t c = 0; c < n; ++c) kept[c] = mine[c];
    for (int64_t c = 0; c < n; ++c) room.sums[c] = room.gates[c] = 0;
    for (int64_t e = a.indptr[i]; e < a.indptr[i + 1]; ++e) {
      fetch_ahead(a.source, a.indices, e, last, n);
      fetch_ahead(a.value, a.indices, e, last, n);
      const uint8_t* u = row_codes(isa, a.source, a.indices[e], n, room.source);
      look_up(a.table, small, u, kept, n, gate);
      const uint8_t* v = row_codes(isa, a.value, a.indices[e], n, room.value);
      for (int64_t c = 0; c < n; ++c) {
        room.sums[c] += gate[c] * v[c];
        room.gates[c] += gate[c];
      }
    }
    finish_pairs(a, i, room.sums, 0.0f, room.gates);
  }
}

}  // namespace
}  // namespace nodebits
