// Codes that meet at an edge: products by vpdpbusd where bytes hold them, tables in registers.
//
// What is stored here is read again at once: a store of a part of a register would not be
// forwarded, so whole ones go without a mask.
#pragma once

#include <immintrin.h>

#include "families/pairs.h"
#include "isa/avx512/pack.h"

namespace nodebits {
namespace {

// Products of an edge that wait to be added up by head: those of both rows, and of the source.
struct Products {
  __m512i all, own;
};

// The sums of lanes 0 and 1, and of 2 and 3, of both vectors in turn.
inline __m512i add_neighbours(__m512i a, __m512i b) {
  const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
  return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                          _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}

// Bytes are multiplied 64 columns at a time, each quarter of a register holds 16 of them.
struct ByteProducts {
  const uint8_t *u, *target, *floor, *vector;  // without a vector the product of both rows

  Products at(int64_t c, __mmask64 mask) const {
    const __m512i code = _mm512_maskz_loadu_epi8(mask, u + c);
    const __m512i other = _mm512_maskz_loadu_epi8(mask, target + c);
    Products p{_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (vector == nullptr) {
      // The second factor is signed: 128 is taken off the target's codes, and comes back as so
      // often the source's.
      const __m512i flipped = _mm512_xor_si512(other, _mm512_set1_epi8(static_cast<char>(0x80)));
      add_products(p.own, code, _mm512_set1_epi8(1));
      add_products(p.all, code, flipped);
      p.all = _mm512_add_epi32(p.all, _mm512_slli_epi32(p.own, 7));
    } else {
      const __m512i weights = _mm512_maskz_loadu_epi8(mask, vector + c);
      const __m512i least = _mm512_maskz_loadu_epi8(mask, floor + c);
      add_products(p.own, code, weights);
      add_products(p.all, _mm512_subs_epu8(_mm512_add_epi8(code, other), least), weights);
    }
    return p;
  }
  Products sum_of(int64_t c, __mmask64 mask) const { return at(c, mask); }
  // Sums of 16 columns each, as they come.
  __m256i sixteens(int64_t c, __mmask64 mask) const {
    const Products p = at(c, mask);
    __m512i t = add_neighbours(p.all, p.own);
    t = add_neighbours(t, t);  // of each quarter: all, own, and both again
    const __m512i order =
        _mm512_set_epi32(15, 15, 15, 15, 15, 15, 15, 15, 13, 9, 5, 1, 12, 8, 4, 0);
    return _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, t));
  }
};

inline __m512i codes_of_32(const uint8_t* u, __mmask32 mask) {
  return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, u));
}
inline __m512i codes_of_32(const int16_t* u, __mmask32 mask) {
  return _mm512_maskz_loadu_epi16(mask, u);
}

// Words are multiplied 32 columns at a time, each half of a register holds 16 of them.
template <class U>
struct WordProducts {
  const U* u;
  const int16_t *moved, *vector;

  Products at(int64_t c, __mmask32 mask) const {
    const __m512i code = codes_of_32(u + c, mask);
    const __m512i other = _mm512_maskz_loadu_epi16(mask, moved + c);
    if (vector == nullptr)
      return {_mm512_madd_epi16(code, other), _mm512_madd_epi16(code, _mm512_set1_epi16(1))};
    const __m512i weights = _mm512_maskz_loadu_epi16(mask, vector + c);
    const __m512i sum = _mm512_max_epi16(_mm512_add_epi16(code, other), _mm512_setzero_si512());
    return {_mm512_madd_epi16(sum, weights), _mm512_madd_epi16(code, weights)};
  }
  Products sum_of(int64_t c, __mmask64 mask) const {
    const Products p = at(c, static_cast<__mmask32>(mask));
    const Products q = at(c + 32, static_cast<__mmask32>(mask >> 32));
    return {_mm512_add_epi32(p.all, q.all), _mm512_add_epi32(p.own, q.own)};
  }
  __m256i sixteens(int64_t c, __mmask64 mask) const {
    const Products p = at(c, static_cast<__mmask32>(mask));
    const Products q = at(c + 32, static_cast<__mmask32>(mask >> 32));
    __m512i t = add_neighbours(add_neighbours(p.all, q.all), add_neighbours(p.own, q.own));
    t = _mm512_add_epi32(t, _mm512_shuffle_i32x4(t, t, 0xb1));  // of each half: two all, two own
    const __m512i order =
        _mm512_set_epi32(15, 15, 15, 15, 15, 15, 15, 15, 11, 3, 10, 2, 9, 1, 8, 0);
    return _mm512_castsi512_si256(_mm512_permutexvar_epi32(order, t));
  }
};

constexpr int64_t kSixteens = 256;  // of a row at most; longer ones are scored as at other levels

// Heads of a multiple of 64 columns are added up in a register, others from sums of sixteen.
template <class P>
inline void score_products(const ScoreArgs& a, int64_t width, const P& products, float* scores) {
  if (width % 64 == 0) {
    for (int64_t h = 0; h < a.heads; ++h) {
      Products sum = products.sum_of(h * width, ~0ull);
      for (int64_t c = 64; c < width; c += 64) {
        const Products p = products.sum_of(h * width + c, ~0ull);
        sum = {_mm512_add_epi32(sum.all, p.all), _mm512_add_epi32(sum.own, p.own)};
      }
      const float own = static_cast<float>(_mm512_reduce_add_epi32(sum.own)) * a.source_factor[h];
      scores[h] = static_cast<float>(_mm512_reduce_add_epi32(sum.all)) * a.factor[h] + own;
    }
    return;
  }
  alignas(64) int32_t all[kSixteens + 16], own[kSixteens + 16];
  for (int64_t c = 0; c < a.num_cols; c += 64) {
    const int64_t left = a.num_cols - c;
    const __m256i made = products.sixteens(c, left >= 64 ? ~0ull : (1ull << left) - 1);
    _mm_store_si128(reinterpret_cast<__m128i*>(all + c / 16), _mm256_castsi256_si128(made));
    _mm_store_si128(reinterpret_cast<__m128i*>(own + c / 16), _mm256_extracti128_si256(made, 1));
  }
  if (width == 16) {
    for (int64_t h = 0; h < a.heads; h += 8) {
      const __mmask8 mask =
          static_cast<__mmask8>(a.heads - h >= 8 ? 0xff : (1u << (a.heads - h)) - 1);
      const __m256 one =
          _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(all + h)));
      const __m256 other =
          _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(own + h)));
      const __m256 scaled = _mm256_mul_ps(one, _mm256_maskz_loadu_ps(mask, a.factor + h));
      const __m256 linear = _mm256_mul_ps(other, _mm256_maskz_loadu_ps(mask, a.source_factor + h));
      _mm256_mask_storeu_ps(scores + h, mask, _mm256_add_ps(scaled, linear));
    }
    return;
  }
  const int64_t parts = width / 16;
  for (int64_t h = 0, p = 0; h < a.heads; ++h) {
    int32_t sum = 0, linear = 0;
    for (const int64_t to = p + parts; p < to; ++p) sum += all[p], linear += own[p];
    scores[h] =
        static_cast<float>(sum) * a.factor[h] + static_cast<float>(linear) * a.source_factor[h];
  }
}

// Whether heads are made of sixteens; and floors and vector as bytes too where these hold them.
inline ScoreWay prepare_vector(Avx512, const ScoreArgs& a, const PairRoom& room) {
  ScoreWay way = plain_way(a, room);
  way.special = way.width % 16 == 0 && a.num_cols <= 16 * kSixteens;
  way.bytes = largest_joined(a.source, a.joined) + largest_code(a.target) < 256;
  if (a.vector == nullptr) {
    way.bytes = true;
    return way;
  }
  for (int64_t c = 0; c < a.num_cols; ++c) {
    room.gate[c] = static_cast<uint8_t>(a.floor[c] < 255 ? a.floor[c] : 255);
    room.value[c] = static_cast<uint8_t>(a.vector[c]);
    way.bytes = way.bytes && a.vector[c] >= -128 && a.vector[c] <= 127;
  }
  return way;
}

inline void score_row(Avx512, const ScoreArgs& a, const ScoreWay& way, const int16_t* u,
                      const uint8_t* /*mine*/, const PairRoom& room, float* scores) {
  if (!way.special) return score_heads(a, way.width, u, room, scores);
  const int16_t* vector = a.vector == nullptr ? nullptr : room.vector;
  score_products(a, way.width, WordProducts<int16_t>{u, room.moved, vector}, scores);
}

inline void score_row(Avx512, const ScoreArgs& a, const ScoreWay& way, const uint8_t* u,
                      const uint8_t* mine, const PairRoom& room, float* scores) {
  if (!way.special) return score_heads(a, way.width, u, room, scores);
  if (!way.bytes)
    return score_products(a, way.width, WordProducts<uint8_t>{u, room.moved, room.vector}, scores);
  const uint8_t* vector = a.vector == nullptr ? nullptr : room.value;
  score_products(a, way.width, ByteProducts{u, mine, room.gate, vector}, scores);
}

// Entries of a table of 256, by number.
struct Page {
  __m512i part[4];

  explicit Page(const uint8_t* table) {
    for (int i = 0; i < 4; ++i) part[i] = _mm512_loadu_si512(table + 64 * i);
  }
  __m512i at(__m512i index) const {
    const __m512i low = _mm512_permutex2var_epi8(part[0], index, part[1]);
    const __m512i high = _mm512_permutex2var_epi8(part[2], index, part[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
  }
};

// out[c ..] = find(c, mask), 64 columns at a time.
template <class F>
inline void by_sixty_four(int64_t n, uint8_t* out, const F& find) {
  int64_t c = 0;
  for (; c + 64 <= n; c += 64) _mm512_storeu_si512(out + c, find(c, ~0ull));
  if (c == n) return;
  const __mmask64 mask = (1ull << (n - c)) - 1;
  _mm512_mask_storeu_epi8(out + c, mask, find(c, mask));
}

inline void look_up(Avx512, const uint8_t* table, int reached, const uint8_t* at, int64_t n,
                    uint8_t* out) {
  const Page page(table);
  const auto numbers = [&](int64_t c, __mmask64 mask) {
    return _mm512_maskz_loadu_epi8(mask, at + c);
  };
  if (reached <= 64) {
    by_sixty_four(n, out, [&](int64_t c, __mmask64 mask) {
      return _mm512_permutexvar_epi8(numbers(c, mask), page.part[0]);
    });
  } else if (reached <= 128) {
    by_sixty_four(n, out, [&](int64_t c, __mmask64 mask) {
      return _mm512_permutex2var_epi8(page.part[0], numbers(c, mask), page.part[1]);
    });
  } else {
    by_sixty_four(n, out, [&](int64_t c, __mmask64 mask) { return page.at(numbers(c, mask)); });
  }
}

// By the low bytes of numbers up to 768 in every page, of which the number's own is kept.
inline void look_up(Avx512, const uint8_t* table, int reached, const int16_t* at, int64_t n,
                    uint8_t* out) {
  const Page first(table), second(table + 256);
  by_sixty_four(n, out, [&](int64_t c, __mmask64 mask) {
    const __m512i a = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask), at + c);
    const __m512i b = _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask >> 32), at + c + 32);
    const __m512i low = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(a)),
                                           _mm512_cvtepi16_epi8(b), 1);
    const auto beyond = [&](int16_t most) {
      const __m512i from = _mm512_set1_epi16(most);
      return static_cast<__mmask64>(_mm512_cmpgt_epi16_mask(a, from)) |
             static_cast<__mmask64>(_mm512_cmpgt_epi16_mask(b, from)) << 32;
    };
    __m512i made = _mm512_mask_blend_epi8(beyond(255), first.at(low), second.at(low));
    if (reached > 512) made = _mm512_mask_blend_epi8(beyond(511), made, Page(table + 512).at(low));
    return made;
  });
}

inline __m512i values_of_16(const uint8_t* v) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(v)));
}
inline __m512i values_of_16(const int16_t* v) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v)));
}

// Both factors are 16 bits of 32: vpmaddwd takes half the time of a product of 32.
template <class V>
inline void weigh(Avx512, const uint8_t* gate, int zero, const V* v, int64_t n, int32_t* sums,
                  int32_t* gates) {
  const __m512i closed = _mm512_set1_epi32(zero);
  int64_t c = 0;
  for (; c + 16 <= n; c += 16) {
    const __m512i open = _mm512_sub_epi32(values_of_16(gate + c), closed);
    const __m512i product = _mm512_madd_epi16(open, values_of_16(v + c));
    _mm512_storeu_si512(sums + c, _mm512_add_epi32(_mm512_loadu_si512(sums + c), product));
    _mm512_storeu_si512(gates + c, _mm512_add_epi32(_mm512_loadu_si512(gates + c), open));
  }
  for (; c < n; ++c) {
    const int32_t open = gate[c] - zero;
    sums[c] += open * v[c];
    gates[c] += open;
  }
}

}  // namespace
}  // namespace nodebits
