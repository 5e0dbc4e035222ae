// What the levels' sums with lines have in common.
#pragma once

#include "contract/products.h"
#include "contract/rows.h"

namespace nodebits {
namespace {

// The code of one column put into a row, in fields of 1, 2, 4 or 8 bits.
inline void put_code(uint8_t* row, int64_t column, int bits, int code) {
  const int shift = static_cast<int>(column * bits % 8), mask = (1 << bits) - 1;
  uint8_t* byte = row + column * bits / 8;
  *byte = static_cast<uint8_t>((*byte & ~(mask << shift)) | code << shift);
}

// Codes of those columns of [c, c + n) that no line gives; `sums` is that of column c.
template <int B>
inline void look_up_codes(const SumLineArgs& a, const uint8_t* sums, const uint8_t* own, int64_t c,
                          int64_t n, uint8_t* to) {
  for (int i = 0; i < a.num_looked_up; ++i) {
    const int64_t column = a.looked_up[i];
    if (column < c || column >= c + n) continue;
    const int field = own == nullptr ? 0 : own[column * B / 8] >> (column * B % 8);
    const int of_own = field & ((1 << B) - 1);
    put_code(to, column, a.out_bits, a.codes[i][of_own * kLineSums + sums[column - c]]);
  }
}

}  // namespace
}  // namespace nodebits
