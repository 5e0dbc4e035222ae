// Codes of two rows meet at an edge. A row is unpacked into bytes, which stay in the cache next to
// the core, and loops over its columns do the rest: they are the same at every level, and the
// compiler makes vectors of them. Everything is an integer until the row's end.
//
// Bytes may alias all that is reached through a reference: loops that write some take what they
// read from local variables.
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

constexpr int64_t kAheadEdges = 8;

// Asks for the row of a later edge before it is read.
inline void fetch_row(const FieldRows& rows, int64_t row, int64_t n) {
  const int64_t bytes = packed_row_bytes(n, rows.bits);
  const uint8_t* next = rows.packed + row * bytes;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(next + b);
}

inline void fetch_ahead(const FieldRows& rows, const EdgeFields& joined, const int32_t* indices,
                        int64_t e, int64_t end, int64_t n) {
  if (e + kAheadEdges >= end) return;
  fetch_row(rows, indices[e + kAheadEdges], n);
  if (joined.order != nullptr) fetch_row(joined.rows, joined.order[e + kAheadEdges], n);
}

inline int largest_code(const FieldRows& rows) {
  return rows.packed == nullptr ? 0 : (1 << rows.bits) - 1;
}

// The largest sum of the codes of a source and an edge.
inline int largest_joined(const FieldRows& rows, const EdgeFields& joined) {
  return largest_code(rows) + largest_code(joined.rows);
}

// Calls f(u) with the codes of a source, those of the edge added: bytes, or 16 bits where a sum
// needs them.
template <class I, class F>
inline void with_joined(I isa, const FieldRows& rows, const EdgeFields& joined, int64_t source,
                        int64_t e, int64_t n, const PairRoom& room, uint8_t* bytes, int16_t* wide,
                        const F& f) {
  const uint8_t* u = row_codes(isa, rows, source, n, bytes);
  if (joined.rows.packed == nullptr) return f(u);
  const int64_t at = joined.order == nullptr ? e : joined.order[e];
  const uint8_t* v = row_codes(isa, joined.rows, at, n, room.edge);
  if (largest_joined(rows, joined) < 256) {
    for (int64_t c = 0; c < n; ++c) bytes[c] = static_cast<uint8_t>(u[c] + v[c]);
    return f(static_cast<const uint8_t*>(bytes));
  }
  for (int64_t c = 0; c < n; ++c) wide[c] = static_cast<int16_t>(u[c] + v[c]);
  f(static_cast<const int16_t*>(wide));
}

struct ScoreSums {
  int32_t all, linear;
};

// sum w * max(u + t - floor, 0), and sum w * u. `moved` is t - floor.
template <class U>
inline ScoreSums rectified_product(const U* u, const int16_t* moved, const int16_t* vector,
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
template <class U>
inline ScoreSums dot_product(const U* u, const int16_t* moved, int64_t n) {
  int32_t all = 0, linear = 0;
  for (int64_t c = 0; c < n; ++c) {
    const int16_t code = u[c];
    all += code * moved[c];
    linear += code;
  }
  return {all, linear};
}

// How the edges of a call are scored; a level may have better ways than the plain one.
struct ScoreWay {
  int64_t width;  // of a head
  bool special, bytes;
};

inline ScoreWay plain_way(const ScoreArgs& a, const PairRoom& room) {
  for (int64_t c = 0; a.vector != nullptr && c < a.num_cols; ++c)
    room.vector[c] = static_cast<int16_t>(a.vector[c]);
  return {a.num_cols / a.heads, false, false};
}

template <class I>
inline ScoreWay prepare_vector(I, const ScoreArgs& a, const PairRoom& room) {
  return plain_way(a, room);
}

inline void prepare_target(const ScoreArgs& a, const uint8_t* mine, const PairRoom& room) {
  const bool dot = a.vector == nullptr;
  for (int64_t c = 0; c < a.num_cols; ++c)
    room.moved[c] = static_cast<int16_t>(dot ? mine[c] : mine[c] - a.floor[c]);
}

template <class U>
inline void score_heads(const ScoreArgs& a, int64_t width, const U* u, const PairRoom& room,
                        float* scores) {
  for (int64_t h = 0; h < a.heads; ++h) {
    const int64_t at = h * width;
    const ScoreSums s = a.vector == nullptr
                            ? dot_product(u + at, room.moved + at, width)
                            : rectified_product(u + at, room.moved + at, room.vector + at, width);
    const float linear = static_cast<float>(s.linear) * a.source_factor[h];
    scores[h] = static_cast<float>(s.all) * a.factor[h] + linear;
  }
}

// The scores of an edge, by head. `mine` are the codes of the target.
template <class I, class U>
inline void score_row(I, const ScoreArgs& a, const ScoreWay& way, const U* u,
                      const uint8_t* /*mine*/, const PairRoom& room, float* scores) {
  score_heads(a, way.width, u, room, scores);
}

// Scores [edges of the rows, heads].
template <class I>
void pair_scores(I isa, const ScoreArgs& a, int64_t begin, int64_t end, const PairRoom& room,
                 float* scores) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  const ScoreWay way = prepare_vector(isa, a, room);
  for (int64_t i = begin; i < end; ++i) {
    if (a.indptr[i] == a.indptr[i + 1]) continue;
    const uint8_t* mine = row_codes(isa, a.target, i, n, room.target);
    prepare_target(a, mine, room);
    for (int64_t e = a.indptr[i]; e < a.indptr[i + 1]; ++e, scores += a.heads) {
      fetch_ahead(a.source, a.joined, a.indices, e, last, n);
      with_joined(isa, a.source, a.joined, a.indices[e], e, n, room, room.source, room.joined,
                  [&](const auto* u) { score_row(isa, a, way, u, mine, room, scores); });
    }
  }
}

// Sums of a row, decoded; `weight` is one number, or as many as there are columns.
inline void finish_pairs(const PairSumArgs& a, int64_t row, const int32_t* sums, float degree,
                         const int32_t* gates) {
  float* y = a.out + row * a.num_cols;
  for (int64_t c = 0; c < a.num_cols; ++c) {
    const float weight = gates == nullptr ? degree : static_cast<float>(gates[c]);
    y[c] = (static_cast<float>(sums[c]) - weight * a.zero_point[c]) * a.scale[c];
  }
}

// The floors that messages are rectified at, as wide as their codes.
inline void prepare_floor(const PairSumArgs& a, const PairRoom& room) {
  for (int64_t c = 0; c < a.num_cols; ++c) {
    room.vector[c] = static_cast<int16_t>(a.floor[c]);
    room.gate[c] = static_cast<uint8_t>(a.floor[c] < 255 ? a.floor[c] : 255);
  }
}

// max(u - floor, 0): bytes below a floor beyond them are none.
inline uint8_t above(uint8_t u, uint8_t floor) {
  return static_cast<uint8_t>((u > floor ? u : floor) - floor);
}
inline int16_t above(int16_t u, int16_t floor) {
  return static_cast<int16_t>((u > floor ? u : floor) - floor);
}
inline const uint8_t* floor_of(const PairRoom& room, const uint8_t* /*u*/) { return room.gate; }
inline const int16_t* floor_of(const PairRoom& room, const int16_t* /*u*/) { return room.vector; }

// Sums of max(u + v - floor, 0), for some edges in fewer bits than the sums have.
template <class I>
void rectified_sum(I isa, const PairSumArgs& a, int64_t begin, int64_t end, const PairRoom& room) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  const int top = largest_joined(a.source, a.joined);
  // Of messages up to 31 there are 8 in a byte, of others, up to 510, 64 in 15 bits.
  const bool narrow = top < 32;
  const int64_t at_once = narrow ? 8 : 64;
  uint8_t* few = room.value;
  int16_t* some = room.moved;
  int32_t* sums = room.sums;
  prepare_floor(a, room);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = a.indptr[i], stop = a.indptr[i + 1];
    for (int64_t c = 0; c < n; ++c) sums[c] = 0;
    for (int64_t e = first; e < stop;) {
      const int64_t part = stop - e < at_once ? stop : e + at_once;
      if (narrow) {
        for (int64_t c = 0; c < n; ++c) few[c] = 0;
      } else {
        for (int64_t c = 0; c < n; ++c) some[c] = 0;
      }
      for (; e < part; ++e) {
        fetch_ahead(a.source, a.joined, a.indices, e, last, n);
        with_joined(isa, a.source, a.joined, a.indices[e], e, n, room, room.source, room.joined,
                    [&](const auto* u) {
                      const auto* floor = floor_of(room, u);
                      if (narrow) {
                        for (int64_t c = 0; c < n; ++c)
                          few[c] = static_cast<uint8_t>(few[c] + above(u[c], floor[c]));
                      } else {
                        for (int64_t c = 0; c < n; ++c)
                          some[c] = static_cast<int16_t>(some[c] + above(u[c], floor[c]));
                      }
                    });
      }
      if (narrow) {
        for (int64_t c = 0; c < n; ++c) sums[c] += few[c];
      } else {
        for (int64_t c = 0; c < n; ++c) sums[c] += some[c];
      }
    }
    finish_pairs(a, i, sums, static_cast<float>(stop - first), nullptr);
  }
}

// out[c] = table[at[c]], of whose entries so many are reached; up to 32 are looked up in registers.
template <class I>
inline void look_up(I, const uint8_t* table, int reached, const uint8_t* at, int64_t n,
                    uint8_t* out) {
  int64_t c = 0;
#if !defined(__clang__)  // which has no shuffle by a variable
  if (reached <= 32) {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    Bytes low, high;
    __builtin_memcpy(&low, table, 16);
    __builtin_memcpy(&high, table + 16, 16);
    for (; c + 16 <= n; c += 16) {
      Bytes one;
      __builtin_memcpy(&one, at + c, 16);
      const Bytes made =
          one > 15 ? __builtin_shuffle(high, one & 15) : __builtin_shuffle(low, one & 15);
      __builtin_memcpy(out + c, &made, 16);
    }
  }
#endif
  (void)reached;
  for (; c < n; ++c) out[c] = table[at[c]];
}

template <class I>
inline void look_up(I, const uint8_t* table, int /*reached*/, const int16_t* at, int64_t n,
                    uint8_t* out) {
  for (int64_t c = 0; c < n; ++c) out[c] = table[at[c]];
}

// sums += (gate - zero) * v, gates += gate - zero.
template <class I, class V>
inline void weigh(I, const uint8_t* gate, int zero, const V* v, int64_t n, int32_t* sums,
                  int32_t* gates) {
  for (int64_t c = 0; c < n; ++c) {
    const int32_t open = gate[c] - zero;
    sums[c] += open * v[c];
    gates[c] += open;
  }
}

// Messages m = max(u + v - floor, 0) weighed by the table's entry of their distance from the
// largest of the row, in each column: the sum over the sum of the weights.
template <class I>
void rectified_softmax(I isa, const PairSumArgs& a, int64_t begin, int64_t end,
                       const PairRoom& room) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  const int reached = largest_joined(a.source, a.joined) + 1;
  // Where only the largest counts, its weight does not.
  bool hard = true;
  for (int d = 1; d < reached; ++d) hard = hard && a.table[d] == 0;
  int16_t* far = room.moved;
  int32_t *sums = room.sums, *gates = room.gates;
  const bool falling = a.falling;
  const PairRoom to = room;
  prepare_floor(a, room);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = a.indptr[i], stop = a.indptr[i + 1];
    float* y = a.out + i * n;
    if (first == stop) {
      for (int64_t c = 0; c < n; ++c) y[c] = 0.0f;
      continue;
    }
    const auto each = [&](const auto& f) __attribute__((always_inline)) {
      for (int64_t e = first; e < stop; ++e) {
        fetch_ahead(a.source, a.joined, a.indices, e, last, n);
        with_joined(isa, a.source, a.joined, a.indices[e], e, n, room, room.source, room.joined, f);
      }
    };
    for (int64_t c = 0; c < n; ++c) far[c] = falling ? int16_t{INT16_MAX} : int16_t{0};
    each([&](const auto* u) {
      const auto* floor = floor_of(room, u);
      if (falling) {
        for (int64_t c = 0; c < n; ++c) {
          const int16_t m = above(u[c], floor[c]);
          far[c] = m < far[c] ? m : far[c];
        }
      } else {
        for (int64_t c = 0; c < n; ++c) {
          const int16_t m = above(u[c], floor[c]);
          far[c] = m > far[c] ? m : far[c];
        }
      }
    });
    for (int64_t c = 0; c < n; ++c) {
      sums[c] = hard ? far[c] : 0;
      gates[c] = hard ? 1 : 0;
    }
    if (!hard) {
      each([&]<class U>(const U* u) {
        const auto* floor = floor_of(room, u);
        constexpr bool kBytes = sizeof(U) == 1;
        U* message = reinterpret_cast<U*>(kBytes ? static_cast<void*>(to.value) : to.joined_value);
        U* distance = reinterpret_cast<U*>(kBytes ? static_cast<void*>(to.target) : to.joined);
        for (int64_t c = 0; c < n; ++c) message[c] = above(u[c], floor[c]);
        if (falling) {
          for (int64_t c = 0; c < n; ++c) distance[c] = static_cast<U>(message[c] - far[c]);
        } else {
          for (int64_t c = 0; c < n; ++c) distance[c] = static_cast<U>(far[c] - message[c]);
        }
        look_up(isa, a.table, reached, distance, n, to.edge);
        weigh(isa, to.edge, 0, message, n, sums, gates);
      });
    }
    for (int64_t c = 0; c < n; ++c) {
      const float mean = static_cast<float>(sums[c]) / static_cast<float>(gates[c]);
      y[c] = (mean - a.zero_point[c]) * a.scale[c];
    }
  }
}

// Sums of gate * value, and of the gates themselves, which the values' zero point is weighed by.
template <class I>
void gated_sum(I isa, const PairSumArgs& a, int64_t begin, int64_t end, const PairRoom& room) {
  const int64_t n = a.num_cols, last = a.indptr[end];
  const int top = largest_joined(a.source, a.joined) + largest_code(a.target);
  uint8_t* gate = room.gate;
  int16_t* both = room.moved;
  int32_t *sums = room.sums, *gates = room.gates;
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t* mine = row_codes(isa, a.target, i, n, room.target);
    for (int64_t c = 0; c < n; ++c) sums[c] = gates[c] = 0;
    for (int64_t e = a.indptr[i]; e < a.indptr[i + 1]; ++e) {
      fetch_ahead(a.source, a.joined, a.indices, e, last, n);
      fetch_ahead(a.value, a.joined_value, a.indices, e, last, n);
      with_joined(isa, a.source, a.joined, a.indices[e], e, n, room, room.source, room.joined,
                  [&](const auto* u) {
                    if (top < 256) {
                      for (int64_t c = 0; c < n; ++c)
                        gate[c] = static_cast<uint8_t>(u[c] + mine[c]);
                      look_up(isa, a.table, top + 1, gate, n, gate);
                    } else {
                      for (int64_t c = 0; c < n; ++c)
                        both[c] = static_cast<int16_t>(u[c] + mine[c]);
                      look_up(isa, a.table, top + 1, both, n, gate);
                    }
                  });
      with_joined(isa, a.value, a.joined_value, a.indices[e], e, n, room, room.value,
                  room.joined_value,
                  [&](const auto* v) { weigh(isa, gate, a.gate_zero, v, n, sums, gates); });
    }
    finish_pairs(a, i, sums, 0.0f, gates);
  }
}

}  // namespace
}  // namespace nodebits
