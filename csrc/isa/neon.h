// NEON, which every 64-bit ARM processor has.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "families/gemm_weight.h"
#include "isa/isa.h"
#include "isa/tail.h"

namespace nodebits {
namespace {

// Sixteen byte lanes; the members are those of Vec16.
struct VecNeon {
  static constexpr int kBytes = 16;
  uint8x16_t v;

  static VecNeon of(uint16x8_t x) { return {vreinterpretq_u8_u16(x)}; }
  static VecNeon of(uint32x4_t x) { return {vreinterpretq_u8_u32(x)}; }
  static VecNeon of(uint64x2_t x) { return {vreinterpretq_u8_u64(x)}; }
  uint16x8_t halves() const { return vreinterpretq_u16_u8(v); }
  uint32x4_t words() const { return vreinterpretq_u32_u8(v); }
  uint64x2_t longs() const { return vreinterpretq_u64_u8(v); }

  static VecNeon zero() { return {vdupq_n_u8(0)}; }
  static VecNeon fill(uint8_t x) { return {vdupq_n_u8(x)}; }
  static VecNeon load(const uint8_t* p) { return {vld1q_u8(p)}; }
  static VecNeon load_tail(const uint8_t* p, int n, const uint8_t* table_end) {
    if (table_end - p >= kBytes) return load(p);
    return load(Tail<kBytes>(p, n).bytes);
  }
  template <int kRows, bool kTail, class I>
  static VecNeon load_rows(const uint8_t* base, int64_t stride, const I* i, int64_t /*n*/,
                           int bytes, const uint8_t* table_end) {
    static_assert(kRows == 1);
    const uint8_t* p = base + static_cast<int64_t>(i[0]) * stride;
    if constexpr (kTail) return load_tail(p, bytes, table_end);
    return load(p);
  }
  void store(uint8_t* p) const { vst1q_u8(p, v); }
  static VecNeon select(VecNeon mask, VecNeon a, VecNeon b) { return {vbslq_u8(mask.v, a.v, b.v)}; }
  static VecNeon sum3(VecNeon a, VecNeon b, VecNeon c) {
    return {veorq_u8(veorq_u8(a.v, b.v), c.v)};
  }
  // Where a and b differ the carry is c, elsewhere it is either of them.
  static VecNeon carry3(VecNeon a, VecNeon b, VecNeon c) {
    return {vbslq_u8(veorq_u8(a.v, b.v), c.v, a.v)};
  }
  friend VecNeon operator&(VecNeon a, VecNeon b) { return {vandq_u8(a.v, b.v)}; }
  friend VecNeon add8(VecNeon a, VecNeon b) { return {vaddq_u8(a.v, b.v)}; }
  friend VecNeon add16(VecNeon a, VecNeon b) { return of(vaddq_u16(a.halves(), b.halves())); }
  friend VecNeon add32(VecNeon a, VecNeon b) { return of(vaddq_u32(a.words(), b.words())); }
  friend VecNeon add64(VecNeon a, VecNeon b) { return of(vaddq_u64(a.longs(), b.longs())); }
  friend VecNeon sub64(VecNeon a, VecNeon b) { return of(vsubq_u64(a.longs(), b.longs())); }
  template <int N>
  VecNeon shr16() const {
    return of(vshrq_n_u16(halves(), N));
  }
  template <int N>
  VecNeon shl16() const {
    return of(vshlq_n_u16(halves(), N));
  }
  template <int N>
  VecNeon shl64() const {
    return of(vshlq_n_u64(longs(), N));
  }
  template <int B>
  VecNeon odd() const {
    if constexpr (B == 16) return of(vshrq_n_u32(words(), 16));
    if constexpr (B == 8) return shr16<8>();
    if constexpr (B == 4) return {vshrq_n_u8(v, 4)};
    if constexpr (B == 2) return {vandq_u8(vshrq_n_u8(v, 2), vdupq_n_u8(0x33))};
  }
  friend VecNeon zip_lo8(VecNeon a, VecNeon b) { return {vzip1q_u8(a.v, b.v)}; }
  friend VecNeon zip_hi8(VecNeon a, VecNeon b) { return {vzip2q_u8(a.v, b.v)}; }

  static void put(uint16x8_t x, int32_t* out, bool add) {
    int32x4_t low = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x)));
    int32x4_t high = vreinterpretq_s32_u32(vmovl_high_u16(x));
    if (add) {
      low = vaddq_s32(low, vld1q_s32(out));
      high = vaddq_s32(high, vld1q_s32(out + 4));
    }
    vst1q_s32(out, low);
    vst1q_s32(out + 4, high);
  }
  static void flush8(VecNeon a, int32_t* out, int64_t /*lane_stride*/, bool add) {
    put(vmovl_u8(vget_low_u8(a.v)), out, add);
    put(vmovl_high_u8(a.v), out + 8, add);
  }
  static void flush16(VecNeon even, VecNeon odd, int32_t* out, int64_t /*lane_stride*/, bool add) {
    put(vzip1q_u16(even.halves(), odd.halves()), out, add);
    put(vzip2q_u16(even.halves(), odd.halves()), out + 8, add);
  }
};

struct Neon {
  static constexpr const char* kMissing = "";
  using ByteVectors = Vectors<VecNeon>;
  static constexpr bool kSharedRegister = false;

  static bool supported() { return true; }
};

using Isa = Neon;

// Products of 16-bit words, one code of a row with eight outputs at a time. Weight panel: strips of
// eight outputs, [depth padded to 4][8] int16.
constexpr int kNeonRows = 8;

inline int64_t padded_depth(Neon, int64_t depth) { return (depth + 3) / 4 * 4; }

inline size_t panel_bytes(Neon isa, const WeightArgs& w) {
  return static_cast<size_t>(padded_depth(isa, w.depth) * ((w.num_out + 7) / 8 * 8) * 2);
}

inline void make_panel(Neon isa, const WeightArgs& w, void* memory) {
  int16_t* panel = static_cast<int16_t*>(memory);
  __builtin_memset(panel, 0, panel_bytes(isa, w));
  for (int64_t m = 0; m < w.num_out; ++m) {
    int16_t* to = panel + m / 8 * 8 * padded_depth(isa, w.depth) + m % 8;
    decode_weight_row(isa, w, m,
                      [&](int64_t k, int value) { to[k * 8] = static_cast<int16_t>(value); });
  }
}

// `rows` of kNeonRows are stored; the others repeat a row that exists.
inline void gemm_micro(const int16_t* const* x, int64_t depth, const int16_t* panel, int32_t* out,
                       int64_t out_stride, int rows, int64_t columns, bool add) {
  int32x4_t low[kNeonRows], high[kNeonRows];
  for (int r = 0; r < kNeonRows; ++r) low[r] = high[r] = vdupq_n_s32(0);
  for (int64_t k = 0; k < depth; k += 4) {
    int16x4_t four[kNeonRows];
    for (int r = 0; r < kNeonRows; ++r) four[r] = vld1_s16(x[r] + k);
    unrolled<4>([&]<int kLane>() __attribute__((always_inline)) {
      const int16x8_t w = vld1q_s16(panel + (k + kLane) * 8);
      for (int r = 0; r < kNeonRows; ++r) {
        low[r] = vmlal_lane_s16(low[r], vget_low_s16(w), four[r], kLane);
        high[r] = vmlal_high_lane_s16(high[r], w, four[r], kLane);
      }
    });
  }
  for (int r = 0; r < rows; ++r) {
    int32_t sums[8];
    vst1q_s32(sums, low[r]);
    vst1q_s32(sums + 4, high[r]);
    int32_t* to = out + r * out_stride;
    for (int64_t c = 0; c < columns; ++c) to[c] = add ? to[c] + sums[c] : sums[c];
  }
}

inline void gemm_tile(Neon isa, const GemmArgs& a, const Tile& t) {
  constexpr int64_t kGemmDepth = 1024;
  uint8_t codes[kGemmDepth];
  int16_t words[kNeonRows][kGemmDepth];
  const int64_t padded = padded_depth(isa, a.depth);
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits);
  for (int64_t i = t.row_begin; i < t.row_end; i += kNeonRows) {
    const int rows = t.row_end - i < kNeonRows ? static_cast<int>(t.row_end - i) : kNeonRows;
    int32_t* out = t.out + (i - t.row_begin) * t.stride;
    for (int64_t k0 = 0; k0 < a.depth; k0 += kGemmDepth) {
      const int64_t n = a.depth - k0 < kGemmDepth ? a.depth - k0 : kGemmDepth;
      const int64_t depth = padded_depth(isa, n);
      const int16_t* row[kNeonRows];
      for (int r = 0; r < kNeonRows; ++r) row[r] = words[r < rows ? r : 0];
      with_bits(a.x_bits, [&]<int B>() {
        for (int r = 0; r < rows; ++r) {
          unpack_codes<B>(isa, a.x + (i + r) * stride + k0 / 8 * B, n, codes);
          for (int64_t k = 0; k < n; ++k) words[r][k] = codes[k];
          for (int64_t k = n; k < depth; ++k) words[r][k] = 0;
        }
      });
      for (int64_t m = t.col_begin; m < t.col_end; m += 8) {
        const int64_t columns = t.col_end - m < 8 ? t.col_end - m : 8;
        gemm_micro(row, depth, static_cast<const int16_t*>(a.panel) + m * padded + k0 * 8,
                   out + (m - t.col_begin), t.stride, rows, columns, k0 > 0);
      }
    }
  }
}

}  // namespace
}  // namespace nodebits
