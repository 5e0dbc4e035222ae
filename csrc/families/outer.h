// Sums of outer products, two edges at a time: the weights of both are the two words of an int32,
// so that a level may multiply and add a pair in one instruction (pmaddwd).
#pragma once

#include "contract/outer.h"
#include "contract/products.h"
#include "families/pairs.h"

namespace nodebits {
namespace {

// Some edges of a row as they are multiplied.
struct OuterEdges {
  const uint8_t* rows[kOuterEdges];  // codes of the sources, an even number of rows
  const uint8_t* end;                // no byte from here on may be read
  const int32_t* weights;            // [pairs, heads]; 0 for an edge that is not there
  int64_t pairs, heads;
};

inline int16_t first_word(int32_t pair) { return static_cast<int16_t>(pair & 0xffff); }
inline int16_t second_word(int32_t pair) { return static_cast<int16_t>(pair >> 16); }

inline int32_t word_pair(int32_t first, int32_t second) {
  return static_cast<int32_t>(static_cast<uint32_t>(first & 0xffff) | static_cast<uint32_t>(second)
                                                                          << 16);
}

// Adds the products of all heads and columns to `out`, [heads, num_cols].
template <class I>
inline void add_outer(I, const OuterEdges& edges, const int16_t* zero, int64_t num_cols,
                      int32_t* __restrict out) {
  for (int64_t p = 0; p < edges.pairs; ++p) {
    const uint8_t *x = edges.rows[2 * p], *y = edges.rows[2 * p + 1];
    for (int64_t h = 0; h < edges.heads; ++h) {
      const int32_t pair = edges.weights[p * edges.heads + h];
      const int32_t v = first_word(pair), w = second_word(pair);
      int32_t* to = out + h * num_cols;
      for (int64_t c = 0; c < num_cols; ++c)
        to[c] += v * (x[c] - zero[2 * c]) + w * (y[c] - zero[2 * c]);
    }
  }
}

// The factors of heads [begin, end) of an edge less their zero points, as the first or the second
// word of a pair.
inline void put_factors(const OuterArgs& a, const uint8_t* factors, int64_t begin, int64_t end,
                        int second, int32_t* pairs) {
  for (int64_t h = begin; h < end; ++h) {
    const int32_t value = h < a.heads ? factors[h] - a.factor_zero[h] : 1;
    int32_t* pair = pairs + (h - begin);
    *pair = second ? word_pair(*pair, value) : word_pair(value, 0);
  }
}

// Tiles begin and end with a head.
template <class I>
void outer_sum(I isa, const OuterArgs& a, const Tile& t, const OuterRoom& room) {
  const int64_t n = a.num_cols, first = t.col_begin / n, last = t.col_end / n;
  OuterEdges edges;
  edges.heads = last - first;
  edges.weights = room.weights;
  edges.end = a.source_end;
  const int64_t all = a.indptr[t.row_end];
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    int32_t* out = t.out + (row - t.row_begin) * t.stride;
    __builtin_memset(out, 0, static_cast<size_t>(edges.heads * n) * 4);
    for (int64_t e = a.indptr[row]; e < a.indptr[row + 1]; e += kOuterEdges) {
      const int64_t left = a.indptr[row + 1] - e;
      const int64_t count = left < kOuterEdges ? left : kOuterEdges;
      for (int64_t i = 0; i < count; ++i) {
        if (e + i + kAheadEdges < all) {
          const int64_t later = e + i + kAheadEdges;
          fetch_row(FieldRows{a.source, 8}, a.indices[later], n);
          if (a.factors.order != nullptr)
            fetch_row(a.factors.rows, a.factors.order[later], a.heads);
        }
        edges.rows[i] = a.source + static_cast<int64_t>(a.indices[e + i]) * n;
        const int64_t at = a.factors.order == nullptr ? e + i : a.factors.order[e + i];
        const uint8_t* factors = row_codes(isa, a.factors.rows, at, a.heads, room.factors);
        put_factors(a, factors, first, last, i & 1, room.weights + i / 2 * edges.heads);
      }
      if (count & 1) edges.rows[count] = edges.rows[count - 1];
      edges.pairs = (count + 1) / 2;
      add_outer(isa, edges, a.zero, n, out);
    }
  }
}

}  // namespace
}  // namespace nodebits
