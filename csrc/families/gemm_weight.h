// Weight fields to signed bytes: b-bit two's complement c, or 2c + 1 in midrise form (b <= 7, so it
// fits int8).
#pragma once

#include "contract/products.h"
#include "families/pack.h"

namespace nodebits {
namespace {

// Calls put(k, value) for every k of weight row `m`.
template <class I, class Put>
inline void decode_weight_row(I isa, const WeightArgs& w, int64_t m, const Put& put) {
  constexpr int64_t kChunk = 1024;
  uint8_t fields[kChunk];
  const uint8_t* row = w.packed + m * packed_row_bytes(w.depth, w.bits);
  const int sign = 1 << (w.bits - 1);
  for (int64_t k0 = 0; k0 < w.depth; k0 += kChunk) {
    const int64_t n = w.depth - k0 < kChunk ? w.depth - k0 : kChunk;
    with_bits(w.bits, [&]<int B>() { unpack_codes<B>(isa, row + k0 / 8 * B, n, fields); });
    for (int64_t k = 0; k < n; ++k) {
      const int c = (fields[k] ^ sign) - sign;
      put(k0 + k, w.midrise ? 2 * c + 1 : c);
    }
  }
}

}  // namespace
}  // namespace nodebits
