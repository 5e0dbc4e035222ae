// One pass over float features: the largest magnitude of every row, whether any value is negative,
// and, where few values are not zero, the columns and codes of those that are not.
#pragma once

#include "contract/rows.h"
#include "contract/trim.h"
#include "families/quantize.h"

namespace nodebits {
namespace {

// Appends the columns and the bits of the values of one row that are not zero; returns how many, or
// -1 when they do not fit. The largest magnitude comes out as its bits, whose order is that of the
// floats, with NaN above infinity.
template <class I>
inline int64_t scan_row(I, const float* x, int64_t n, int64_t room, int32_t* cols, float* values,
                        uint32_t* largest, uint32_t* signs) {
  int64_t count = 0;
  int64_t c = 0;
  uint32_t top = 0, sign = 0;
  for (; c < n; c += 8) {
    const int64_t stop = n - c < 8 ? n : c + 8;
    uint32_t word[8] = {};
    __builtin_memcpy(word, x + c, static_cast<size_t>(stop - c) * 4);
    uint32_t together = 0;
    for (int i = 0; i < 8; ++i) together |= word[i];
    if ((together & 0x7fffffffu) == 0) continue;
    for (int64_t j = c; j < stop; ++j) {
      const uint32_t bits = word[j - c] & 0x7fffffffu;
      if (bits == 0) continue;
      top = bits > top ? bits : top;
      sign |= word[j - c];
      if (count >= 0 && count < room) {
        cols[count] = static_cast<int32_t>(j);
        values[count] = x[j];
        ++count;
      } else {
        count = -1;
      }
    }
  }
  *largest = top;
  *signs = sign >> 31;
  return count;
}

// The largest magnitude and the signs alone, as of scan_row.
template <class I>
inline void scan_extent(I, const float* x, int64_t n, uint32_t* largest, uint32_t* signs) {
  uint32_t top = 0, sign = 0;
  int64_t c = 0;
  for (; c < n; ++c) {
    const uint32_t word = __builtin_bit_cast(uint32_t, x[c]);
    const uint32_t size = word & 0x7fffffffu;
    top = size > top ? size : top;
    sign |= size != 0 ? word : 0;
  }
  *largest = top;
  *signs = sign >> 31;
}

// Codes of a row whose largest magnitude is known, while the row is in the cache.
template <class I>
inline void pack_scanned_row(I isa, const ScanArgs& a, int64_t i, float extent) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  const float zero_point = a.symmetric ? static_cast<float>(1 << (a.bits - 1)) : 0.0f;
  float scale = extent / own_levels(a.bits, a.symmetric);
  scale = scale < a.min_scale ? 1.0f : scale;
  a.scale[i] = scale;
  const float* x = a.x + i * a.num_cols;
  uint8_t* to = a.packed + i * packed_row_bytes(a.num_cols, a.bits);
  float room;
  const float* inverse = exact_inverses(isa, &scale, &zero_point, 1, &room);
  quantize_packed<false>(isa, x, a.num_cols, 1.0f, &scale, &zero_point, inverse, qmax, a.bits, 0,
                         to);
}

struct RowCodes {
  int32_t sum;
  bool mixed;  // not all of them are the same
};

// Codes of the values of a row that are not zero.
template <class I>
inline RowCodes scanned_codes(I, const float* __restrict values, int64_t n, float scale, float qmax,
                              uint8_t* __restrict row) {
  int32_t sum = 0;
  uint32_t differ = 0;
  for (int64_t k = 0; k < n; ++k) {
    const float code = rounded_code(values[k] / scale, qmax);
    row[k] = static_cast<uint8_t>(__builtin_bit_cast(uint32_t, code));
  }
  for (int64_t k = 0; k < n; ++k) {
    sum += row[k];
    differ |= row[k] ^ row[0];
  }
  return {sum, differ != 0};
}

// Rows [begin, end); indices and codes go to the front of the block's own room. Returns how many,
// or -1 when they did not fit (extents and signs are complete all the same).
template <class I>
int64_t scan_rows(I isa, const ScanArgs& a, int64_t begin, int64_t end, int32_t* indices,
                  uint8_t* codes, float* values, int64_t room, ScanFlags* flags) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  int64_t total = 0;
  uint32_t signs = 0, top = 0;
  bool mixed = false;
  for (int64_t i = begin; i < end; ++i) {
    uint32_t largest, sign;
    if (a.scale != nullptr) {
      scan_extent(isa, a.x + i * a.num_cols, a.num_cols, &largest, &sign);
      signs |= sign;
      top = largest > top ? largest : top;
      float extent = __builtin_bit_cast(float, largest);
      if (a.trim) {
        const float levels = own_levels(a.bits, a.symmetric);
        extent = trimmed_extent(a.x + i * a.num_cols, a.num_cols, extent, levels, true);
      }
      a.extent[i] = extent;
      pack_scanned_row(isa, a, i, extent);
      continue;
    }
    const int64_t left = total < 0 ? 0 : room - total;
    const int64_t n = scan_row(isa, a.x + i * a.num_cols, a.num_cols, left,
                               indices + (total < 0 ? 0 : total), values, &largest, &sign);
    signs |= sign;
    top = largest > top ? largest : top;
    float extent = __builtin_bit_cast(float, largest);
    if (a.trim && n > 0) extent = trimmed_extent(values, n, extent, qmax, false);
    a.extent[i] = extent;
    if (n < 0 || total < 0) {
      total = -1;
      continue;
    }
    a.counts[i] = n;
    float scale = extent / qmax;
    scale = scale < a.min_scale ? 1.0f : scale;
    uint8_t* row = codes + total;
    const RowCodes made = scanned_codes(isa, values, n, scale, qmax, row);
    a.first[i] = n > 0 ? row[0] : 0;
    a.sums[i] = made.sum;
    mixed |= made.mixed;
    total += n;
  }
  flags->negative = signs != 0;
  flags->mixed = mixed;
  flags->finite = top < 0x7f800000u;
  return total;
}

}  // namespace
}  // namespace nodebits
