// Packing: eight codes are eight bytes of a 64-bit word; three shift-and-merge steps squeeze them
// to 8 * B adjacent bits, and the reverse spreads them. All widths share the code, and the compiler
// runs it on vectors of words.
#pragma once

#include <utility>

#include "contract/rows.h"

namespace nodebits {
namespace {

template <int B, class I>
inline uint64_t squeeze8(I, uint64_t x) {
  if constexpr (B == 8) {
    return x;
  } else {
    constexpr uint64_t kOne = 0x0101010101010101ull;
    x &= kOne * ((1u << B) - 1);
    x = (x & 0x00ff00ff00ff00ffull) | ((x >> 8) & 0x00ff00ff00ff00ffull) << B;
    x = (x & 0x0000ffff0000ffffull) | ((x >> 16) & 0x0000ffff0000ffffull) << (2 * B);
    return (x & 0xffffffffull) | (x >> 32) << (4 * B);
  }
}

template <int B>
inline uint64_t spread8(uint64_t w) {
  if constexpr (B == 8) {
    return w;
  } else {
    constexpr uint64_t kFour = (1ull << (4 * B)) - 1;
    constexpr uint64_t kTwo = ((1ull << (2 * B)) - 1) * 0x0000000100000001ull;
    constexpr uint64_t kOne = ((1ull << B) - 1) * 0x0001000100010001ull;
    w = (w & kFour) | ((w >> (4 * B)) & kFour) << 32;
    w = (w & kTwo) | ((w >> (2 * B)) & kTwo) << 16;
    return (w & kOne) | ((w >> B) & kOne) << 8;
  }
}

// kPadded: all eight codes of the last group can be read.
template <int B, bool kPadded = false, class I>
inline void pack_codes(I isa, const uint8_t* codes, int64_t n, uint8_t* out) {
  const int64_t groups = n / 8;
  for (int64_t g = 0; g < groups; ++g) {
    uint64_t x;
    __builtin_memcpy(&x, codes + 8 * g, 8);
    x = squeeze8<B>(isa, x);
    __builtin_memcpy(out + B * g, &x, B);
  }
  if (const int rest = static_cast<int>(n % 8)) {
    uint64_t x = 0;
    if constexpr (kPadded) {
      __builtin_memcpy(&x, codes + 8 * groups, 8);
      x &= (1ull << (8 * rest)) - 1;
    } else {
      for (int i = 0; i < rest; ++i) x |= static_cast<uint64_t>(codes[8 * groups + i]) << (8 * i);
    }
    x = squeeze8<B>(isa, x);
    for (int i = 0; i < (rest * B + 7) / 8; ++i)
      out[B * groups + i] = static_cast<uint8_t>(x >> (8 * i));
  }
}

// Unpacks eights of codes as far as a level has instructions for many at once; returns how many.
template <int B, class I>
inline int64_t unpack_eights(I, const uint8_t* /*packed*/, int64_t /*groups*/, uint8_t* /*out*/) {
  return 0;
}

template <int B, class I>
inline void unpack_codes(I isa, const uint8_t* packed, int64_t n, uint8_t* out) {
  const int64_t groups = n / 8;
  int64_t g = unpack_eights<B>(isa, packed, groups, out);
  for (; g < groups; ++g) {
    uint64_t w = 0;
    __builtin_memcpy(&w, packed + B * g, B);
    w = spread8<B>(w);
    __builtin_memcpy(out + 8 * g, &w, 8);
  }
  if (const int rest = static_cast<int>(n % 8)) {
    uint64_t w = 0;
    for (int i = 0; i < (rest * B + 7) / 8; ++i)
      w |= static_cast<uint64_t>(packed[B * groups + i]) << (8 * i);
    w = spread8<B>(w);
    for (int i = 0; i < rest; ++i) out[8 * groups + i] = static_cast<uint8_t>(w >> (8 * i));
  }
}

// Calls f.template operator()<I>() for I = 0 .. N - 1, without a loop.
template <int N, class F>
__attribute__((always_inline)) inline void unrolled(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f.template operator()<I>(), ...);
  }(std::make_integer_sequence<int, N>{});
}

// Calls f.template operator()<B>() with B == bits: one switch per call, not one per row.
template <class F>
inline void with_bits(int bits, const F& f) {
  switch (bits) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    case 5:
      return f.template operator()<5>();
    case 6:
      return f.template operator()<6>();
    case 7:
      return f.template operator()<7>();
    default:
      return f.template operator()<8>();
  }
}

template <class I>
void pack_rows(I isa, const PackArgs& a, int64_t begin, int64_t end) {
  with_bits(a.bits, [&]<int B>() {
    const int64_t stride = packed_row_bytes(a.num_cols, B);
    if (a.num_cols % 8 == 0) {  // rows follow each other without padding: one long row
      pack_codes<B>(isa, a.codes + begin * a.num_cols, (end - begin) * a.num_cols,
                    a.packed + begin * stride);
      return;
    }
    for (int64_t i = begin; i < end; ++i)
      pack_codes<B>(isa, a.codes + i * a.num_cols, a.num_cols, a.packed + i * stride);
  });
}

template <class I>
void unpack_rows(I isa, const UnpackArgs& a, int64_t begin, int64_t end) {
  with_bits(a.bits, [&]<int B>() {
    const int64_t stride = packed_row_bytes(a.num_cols, B);
    if (a.order != nullptr) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t i = a.order[r];
        uint8_t* to = a.codes + i * a.num_cols;
        unpack_codes<B>(isa, a.packed + r * stride, a.num_cols, to);
        const int by = a.shift != nullptr ? a.shift[i] : 0;
        if (by == 0) continue;
        for (int64_t j = 0; j < a.num_cols; ++j) to[j] = static_cast<uint8_t>(to[j] << by);
      }
      return;
    }
    if (a.num_cols % 8 == 0) {
      unpack_codes<B>(isa, a.packed + begin * stride, (end - begin) * a.num_cols,
                      a.codes + begin * a.num_cols);
      return;
    }
    for (int64_t i = begin; i < end; ++i)
      unpack_codes<B>(isa, a.packed + i * stride, a.num_cols, a.codes + i * a.num_cols);
  });
}

template <class I>
void widen_rows(I isa, const WidenArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kChunk =
      1024;  // a multiple of 8, so that a chunk starts on a byte at every width
  with_bits(a.bits, [&]<int B>() {
    uint8_t codes[kChunk];
    for (int64_t i = begin; i < end; ++i) {
      const uint8_t* from = a.packed + i * packed_row_bytes(a.num_cols, B);
      uint8_t* to = a.wide + i * packed_row_bytes(a.num_cols, a.wide_bits);
      for (int64_t c = 0; c < a.num_cols; c += kChunk) {
        const int64_t n = a.num_cols - c < kChunk ? a.num_cols - c : kChunk;
        if (a.wide_bits == 8) {
          unpack_codes<B>(isa, from + c / 8 * B, n, to + c);
        } else {
          unpack_codes<B>(isa, from + c / 8 * B, n, codes);
          if (a.wide_bits == 4) {
            pack_codes<4>(isa, codes, n, to + c / 2);
          } else {
            pack_codes<2>(isa, codes, n, to + c / 4);
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace nodebits
