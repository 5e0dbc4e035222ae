// Sixteen byte lanes through the compiler's vector extension: SSE2, NEON or whatever the target
// has.
#pragma once

#include <cstdint>

#include "isa/tail.h"

namespace nodebits {
namespace {

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint64_t u64x2 __attribute__((vector_size(16)));

struct Vec16 {
  static constexpr int kBytes = 16;
  u8x16 v;

  static Vec16 zero() { return {u8x16{}}; }
  static Vec16 fill(uint8_t x) { return {u8x16{} + x}; }
  static Vec16 load(const uint8_t* p) {
    Vec16 r;
    __builtin_memcpy(&r.v, p, 16);
    return r;
  }
  // The first n bytes of a row; what follows them inside the table may be read, what follows the
  // table may not.
  static Vec16 load_tail(const uint8_t* p, int n, const uint8_t* table_end) {
    if (table_end - p >= kBytes) return load(p);
    return load(Tail<kBytes>(p, n).bytes);
  }
  static Vec16 sum3(Vec16 a, Vec16 b, Vec16 c) { return {a.v ^ b.v ^ c.v}; }
  static Vec16 carry3(Vec16 a, Vec16 b, Vec16 c) { return {(a.v & b.v) | (c.v & (a.v ^ b.v))}; }
  // Bits of a where the mask is set, of b elsewhere.
  static Vec16 select(Vec16 mask, Vec16 a, Vec16 b) { return {(a.v & mask.v) | (b.v & ~mask.v)}; }
  friend Vec16 operator&(Vec16 a, Vec16 b) { return {a.v & b.v}; }
  friend Vec16 add8(Vec16 a, Vec16 b) { return {a.v + b.v}; }
  friend Vec16 add16(Vec16 a, Vec16 b) { return {(u8x16)((u16x8)a.v + (u16x8)b.v)}; }
  template <int N>
  Vec16 shr16() const {
    return {(u8x16)((u16x8)v >> N)};
  }
  template <int N>
  Vec16 shl16() const {
    return {(u8x16)((u16x8)v << N)};
  }
  void store(uint8_t* p) const { __builtin_memcpy(p, &v, 16); }
  friend Vec16 add32(Vec16 a, Vec16 b) { return {(u8x16)((u32x4)a.v + (u32x4)b.v)}; }
  friend Vec16 add64(Vec16 a, Vec16 b) { return {(u8x16)((u64x2)a.v + (u64x2)b.v)}; }
  friend Vec16 sub64(Vec16 a, Vec16 b) { return {(u8x16)((u64x2)a.v - (u64x2)b.v)}; }
  template <int N>
  Vec16 shl64() const {
    return {(u8x16)((u64x2)v << N)};
  }
  // Every second field of B bits, the one in the upper place of each pair, moved to the lower one.
  template <int B>
  Vec16 odd() const {
    if constexpr (B == 16) return {(u8x16)((u32x4)v >> 16)};
    if constexpr (B == 8) return shr16<8>();
    if constexpr (B == 4) return shr16<4>() & fill(0x0f);
    if constexpr (B == 2) return shr16<2>() & fill(0x33);
  }
  // `bytes` bytes of row i[0]; a wider vector takes kRows rows, of which n exist.
  template <int kRows, bool kTail, class I>
  static Vec16 load_rows(const uint8_t* base, int64_t stride, const I* i, int64_t /*n*/, int bytes,
                         const uint8_t* table_end) {
    static_assert(kRows == 1);
    const uint8_t* p = base + static_cast<int64_t>(i[0]) * stride;
    if constexpr (kTail) return load_tail(p, bytes, table_end);
    return load(p);
  }
  friend Vec16 zip_lo8(Vec16 a, Vec16 b) {
    return {
        __builtin_shufflevector(a.v, b.v, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)};
  }
  friend Vec16 zip_hi8(Vec16 a, Vec16 b) {
    return {__builtin_shufflevector(a.v, b.v, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                    15, 31)};
  }

  static void put(u16x8 x, int32_t* out, bool add) {
    u32x4 lo = (u32x4)__builtin_shufflevector(x, u16x8{}, 0, 8, 1, 9, 2, 10, 3, 11);
    u32x4 hi = (u32x4)__builtin_shufflevector(x, u16x8{}, 4, 12, 5, 13, 6, 14, 7, 15);
    if (add) {
      u32x4 old;
      __builtin_memcpy(&old, out, 16);
      lo += old;
      __builtin_memcpy(&old, out + 4, 16);
      hi += old;
    }
    __builtin_memcpy(out, &lo, 16);
    __builtin_memcpy(out + 4, &hi, 16);
  }
  // Sixteen byte sums to sixteen int32; a wider vector puts its lane j at out + j * lane_stride.
  static void flush8(Vec16 a, int32_t* out, int64_t /*lane_stride*/, bool add) {
    put((u16x8)zip_lo8(a, zero()).v, out, add);
    put((u16x8)zip_hi8(a, zero()).v, out + 8, add);
  }
  // 16-bit sums of the even and the odd columns, in column order.
  static void flush16(Vec16 even, Vec16 odd, int32_t* out, int64_t /*lane_stride*/, bool add) {
    const u16x8 e = (u16x8)even.v, o = (u16x8)odd.v;
    put(__builtin_shufflevector(e, o, 0, 8, 1, 9, 2, 10, 3, 11), out, add);
    put(__builtin_shufflevector(e, o, 4, 12, 5, 13, 6, 14, 7, 15), out + 8, add);
  }
};

}  // namespace
}  // namespace nodebits
