// u8 x s8 products on tile registers: tdpbusd multiplies 16 rows of 64 codes with 64 x 16 weights,
// 16,384 products per instruction. Two by two tiles of sums share two tiles of codes and two of
// weights. Weight panel: strips of 32 outputs, [depth / 64][2 tiles of 16 outputs][16][16
// outputs][4], zero where there is no depth or no output.
#pragma once

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "contract/kernels.h"
#include "families/gemm_weight.h"
#include "isa/avx512/pack.h"

namespace nodebits {

extern const Level level_avx512;

namespace {

constexpr int64_t kTileBytes = 1024;  // 16 rows of 64 bytes

struct Amx {
  static constexpr const char* kMissing = "AMX-INT8, or the system does not permit it";

  // The processor has the tiles, and the system lets this process use them: their state is large,
  // so it is granted on request only. Runs on any processor.
  __attribute__((noinline, target("no-avx"))) static bool supported() {
    constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!Avx512::supported() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    if ((d & kTile) == 0 || (d & kInt8) == 0) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }
};

inline int64_t padded_depth(Amx, int64_t depth) { return (depth + 63) / 64 * 64; }

inline size_t panel_bytes(Amx isa, const WeightArgs& w) {
  return static_cast<size_t>(padded_depth(isa, w.depth)) *
         static_cast<size_t>((w.num_out + 31) / 32 * 32);
}

inline void make_panel(Amx isa, const WeightArgs& w, void* memory) {
  int8_t* panel = static_cast<int8_t*>(memory);
  __builtin_memset(panel, 0, panel_bytes(isa, w));
  for (int64_t m = 0; m < w.num_out; ++m) {
    int8_t* to =
        panel + m / 32 * 32 * padded_depth(isa, w.depth) + m % 32 / 16 * kTileBytes + m % 16 * 4;
    decode_weight_row(Avx512{}, w, m, [&](int64_t k, int value) {
      to[k / 64 * 2 * kTileBytes + k % 64 / 4 * 64 + k % 4] = static_cast<int8_t>(value);
    });
  }
}

struct TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Some compilers' tile loads and stores do not tell that they touch memory.
inline void memory_is_current() { __asm__ __volatile__("" ::: "memory"); }

// The intrinsics take literal register numbers only.
template <int kTile>
inline void tile_store(int32_t* to, size_t stride) {
  if constexpr (kTile == 0) _tile_stored(0, to, stride);
  if constexpr (kTile == 1) _tile_stored(1, to, stride);
  if constexpr (kTile == 2) _tile_stored(2, to, stride);
  if constexpr (kTile == 3) _tile_stored(3, to, stride);
}

template <int kTile>
inline void tile_load(const int32_t* from, size_t stride) {
  if constexpr (kTile == 0) _tile_loadd(0, from, stride);
  if constexpr (kTile == 1) _tile_loadd(1, from, stride);
  if constexpr (kTile == 2) _tile_loadd(2, from, stride);
  if constexpr (kTile == 3) _tile_loadd(3, from, stride);
}

// One tile of sums to `rows` x `columns` of the output.
template <int kTile>
inline void store_sums(int32_t* to, int64_t stride, int64_t rows, int64_t columns) {
  if (rows >= 16 && columns >= 16) {
    tile_store<kTile>(to, static_cast<size_t>(stride) * 4);
    return;
  }
  if (rows <= 0 || columns <= 0) return;
  alignas(64) int32_t sums[256];
  tile_store<kTile>(sums, 64);
  memory_is_current();
  for (int64_t r = 0; r < rows && r < 16; ++r) {
    for (int64_t c = 0; c < columns && c < 16; ++c) to[r * stride + c] = sums[r * 16 + c];
  }
}

// The sums of earlier passes; what lies outside the output is never stored.
template <int kTile>
inline void load_sums(const int32_t* from, int64_t stride, int64_t rows, int64_t columns) {
  if (rows >= 16 && columns >= 16) {
    tile_load<kTile>(from, static_cast<size_t>(stride) * 4);
    return;
  }
  alignas(64) int32_t sums[256] = {};
  for (int64_t r = 0; r < rows && r < 16; ++r) {
    for (int64_t c = 0; c < columns && c < 16; ++c) sums[r * 16 + c] = from[r * stride + c];
  }
  memory_is_current();
  tile_load<kTile>(sums, 64);
}

// 32 rows of codes times one strip.
inline void multiply_tiles(const uint8_t* codes, int64_t x_stride, int64_t steps,
                           const int8_t* panel, int32_t* out, int64_t stride, int64_t rows,
                           int64_t columns, bool add) {
  if (add) {
    load_sums<0>(out, stride, rows, columns);
    load_sums<1>(out + 16, stride, rows, columns - 16);
    load_sums<2>(out + 16 * stride, stride, rows - 16, columns);
    load_sums<3>(out + 16 * stride + 16, stride, rows - 16, columns - 16);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const size_t x_bytes = static_cast<size_t>(x_stride);
  const bool narrow = columns <= 16, low = rows <= 16;
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(4, codes + 64 * k, x_bytes);
    _tile_loadd(6, panel + 2 * k * kTileBytes, 64);
    _tile_dpbusd(0, 4, 6);
    if (!narrow) {
      _tile_loadd(7, panel + (2 * k + 1) * kTileBytes, 64);
      _tile_dpbusd(1, 4, 7);
    }
    if (low) continue;
    _tile_loadd(5, codes + 16 * x_stride + 64 * k, x_bytes);
    _tile_dpbusd(2, 5, 6);
    if (!narrow) _tile_dpbusd(3, 5, 7);
  }
  store_sums<0>(out, stride, rows, columns);
  store_sums<1>(out + 16, stride, rows, columns - 16);
  store_sums<2>(out + 16 * stride, stride, rows - 16, columns);
  store_sums<3>(out + 16 * stride + 16, stride, rows - 16, columns - 16);
  memory_is_current();
}

inline void gemm_tile(Amx isa, const GemmArgs& a, const Tile& t) {
  constexpr int64_t kGemmDepth = 1024;  // depth of one pass; a multiple of 64
  constexpr int64_t kGemmRows = 64;     // rows unpacked together; a multiple of 32
  // Rows past the last are multiplied as well, their products are dropped.
  alignas(64) uint8_t codes[kGemmRows * (kGemmDepth + 64)];
  const TileShapes shapes;
  memory_is_current();
  _tile_loadconfig(&shapes);
  const int64_t padded = padded_depth(isa, a.depth);
  const int64_t stride = packed_row_bytes(a.depth, a.x_bits);
  for (int64_t i = t.row_begin; i < t.row_end; i += kGemmRows) {
    const int64_t rows = t.row_end - i < kGemmRows ? t.row_end - i : kGemmRows;
    int32_t* out = t.out + (i - t.row_begin) * t.stride;
    for (int64_t k0 = 0; k0 < a.depth; k0 += kGemmDepth) {
      const int64_t n = a.depth - k0 < kGemmDepth ? a.depth - k0 : kGemmDepth;
      const int64_t steps = padded_depth(isa, n) / 64;
      // An odd number of 64-byte lines between rows keeps the rows of a tile out of the same cache
      // sets.
      const int64_t x_stride = 64 * (steps + (steps % 2 == 0 ? 1 : 0));
      with_bits(a.x_bits, [&]<int B>() {
        for (int64_t r = 0; r < rows; ++r) {
          uint8_t* to = codes + r * x_stride;
          unpack_codes<B>(Avx512{}, a.x + (i + r) * stride + k0 / 8 * B, n, to);
          __builtin_memset(to + n, 0, static_cast<size_t>(steps * 64 - n));
        }
      });
      for (int64_t r = rows; r < (rows + 15) / 16 * 16; ++r)
        __builtin_memset(codes + r * x_stride, 0, static_cast<size_t>(steps * 64));
      memory_is_current();
      for (int64_t m = t.col_begin; m < t.col_end; m += 32) {
        const int8_t* panel = static_cast<const int8_t*>(a.panel) + m * padded + k0 * 32;
        for (int64_t r = 0; r < rows; r += 32) {
          multiply_tiles(codes + r * x_stride, x_stride, steps, panel,
                         out + r * t.stride + (m - t.col_begin), t.stride, rows - r, t.col_end - m,
                         k0 > 0);
        }
      }
    }
  }
  _tile_release();
}

// Of so few columns, as edges have, a tile would hold little but zeros.
inline bool is_shallow(int64_t depth) { return depth <= 12; }

// The AVX-512 level, but for its products of more than a few columns.
inline const Kernels* kernels_of(Amx) {
  static const Kernels table = [] {
    Kernels k = *level_avx512.kernels();
    k.panel_bytes = [](const WeightArgs& w) {
      return is_shallow(w.depth) ? level_avx512.kernels()->panel_bytes(w) : panel_bytes(Amx{}, w);
    };
    k.make_panel = [](const WeightArgs& w, void* panel) {
      is_shallow(w.depth) ? level_avx512.kernels()->make_panel(w, panel)
                          : make_panel(Amx{}, w, panel);
    };
    k.gemm = [](const GemmArgs& a, const Tile& t) {
      is_shallow(a.depth) ? level_avx512.kernels()->gemm(a, t) : gemm_tile(Amx{}, a, t);
    };
    return k;
  }();
  return &table;
}

using Isa = Amx;

}  // namespace
}  // namespace nodebits
