// Packed rows, taken by an index and decoded on the way: what a message function reads of the ends
// of its edges.
#pragma once

#include "contract/rows.h"
#include "families/pack.h"

namespace nodebits {
namespace {

// A multiplication of its own: fused with the subtraction it would round once instead of twice.
template <bool kPerColumn>
inline void decode_span(const uint8_t* codes, int64_t n, const float* scale,
                        const float* zero_point, float* out) {
  const float s0 = *scale, z0 = *zero_point;
  for (int64_t j = 0; j < n; ++j) {
    const float s = kPerColumn ? scale[j] : s0;
    const float z = kPerColumn ? zero_point[j] : z0;
    const float centred = static_cast<float>(codes[j]) - z;
    out[j] = centred * s;
  }
}

template <int B, bool kPerColumn, class I>
void gather_rows_as(I isa, const GatherArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kChunk = 512;  // columns at a time; a multiple of 8
  constexpr int64_t kAhead = 8;    // rows that are asked for before they are read
  const int64_t stride = packed_row_bytes(a.num_cols, B);
  uint8_t codes[kChunk];
  for (int64_t e = begin; e < end; ++e) {
    if (e + kAhead < end) {
      const uint8_t* next = a.packed + a.index[e + kAhead] * stride;
      for (int64_t b = 0; b < stride; b += 64) __builtin_prefetch(next + b);
    }
    const int64_t row = a.index[e];
    const uint8_t* from = a.packed + row * stride;
    float* to = a.out + e * a.num_cols;
    for (int64_t c = 0; c < a.num_cols; c += kChunk) {
      const int64_t n = a.num_cols - c < kChunk ? a.num_cols - c : kChunk;
      const int64_t at = kPerColumn ? c : (a.axis == 0 ? row : 0);
      const uint8_t* read = from + c;
      if constexpr (B != 8) {
        unpack_codes<B>(isa, from + c / 8 * B, n, codes);
        read = codes;
      }
      decode_span<kPerColumn>(read, n, a.scale + at, a.zero_point + at, to + c);
    }
  }
}

template <class I>
void gather_rows(I isa, const GatherArgs& a, int64_t begin, int64_t end) {
  if (a.num_cols == 0) return;
  with_bits(a.bits, [&]<int B>() {
    if (a.axis == 1) {
      gather_rows_as<B, true>(isa, a, begin, end);
    } else {
      gather_rows_as<B, false>(isa, a, begin, end);
    }
  });
}

}  // namespace
}  // namespace nodebits
