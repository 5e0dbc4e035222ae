// What follows integer sums, a block of columns of a row in registers: between a sum and the bytes
// of the next layer nothing goes through memory. Operations and their order are those of fused.h,
// rescale.h and quantize.h. A level has its registers as a type `Row` with
//   Isa, kLanes, kVectors  the level, floats of a vector, vectors that hold columns (of four)
//   kWholeBlock            whether all lanes of four vectors hold columns
//   Float                  a vector of floats, with the operators of the compiler's vectors
//   Lanes                  which lanes exist; Lanes(n) of n columns
//   load(x), all(x)        a whole vector, one value
//   load_some<K>(lanes, x), store<K>(lanes, y, to)  of the lanes that exist in vector K
//   sums<K>(lanes, acc)    int32 sums of the lanes that exist, as floats
//   codes(x)               bytes as floats
//   at_least(least, y)     y where it is NaN or -0, else the larger
//   pack(target, inverse, column, n, y, lanes)  as pack_floats, of columns in registers
//   line(x, slope, start)  x * slope + start, which rounds as the level likes
//   write_line(y, least, n, bits, to)  packs floats as codes, rounded and cut off
//   Packing(target, inverse, column, n)  a quantizer of whole blocks, the same for all rows; of
//                          `bits` a code; write(y, to) packs a row's columns
#pragma once

#include "families/fused.h"

namespace nodebits {
namespace {

// Calls block<kWhole, kVectors>(j, n) for n columns from j on, four vectors at a time: seven
// classes are one vector's work, not four's.
template <int kLanes, class F>
inline void by_row_blocks(int64_t n, const F& block) {
  int64_t j = 0;
  for (; j + 4 * kLanes <= n; j += 4 * kLanes)
    block.template operator()<true, 4>(j, int64_t{4 * kLanes});
  switch ((n - j + kLanes - 1) / kLanes) {
    case 0:
      return;
    case 1:
      return block.template operator()<false, 1>(j, n - j);
    case 2:
      return block.template operator()<false, 2>(j, n - j);
    case 3:
      return block.template operator()<false, 3>(j, n - j);
    default:
      return block.template operator()<false, 4>(j, n - j);
  }
}

// What a block of columns has in common for all rows, whole vectors of it: a factor or a summand
// that is missing has the value that changes no float.
template <class R>
struct BlockColumns {
  static constexpr int kColumns = 4 * R::kLanes;
  alignas(64) float offset[kPrepared][kColumns];
  alignas(64) float scale[kPrepared][kColumns];
  alignas(64) float bias[kPrepared][kColumns];
  alignas(64) float post_scale[kColumns];
  alignas(64) float post_shift[kColumns];

  static void fill(const float* from, int64_t c, int64_t n, float missing, float* to) {
    if (R::kWholeBlock && from != nullptr) {
      __builtin_memcpy(to, from + c, kColumns * sizeof(float));
      return;
    }
    for (int64_t j = 0; j < kColumns; ++j) to[j] = missing;
    if (from == nullptr) return;
    for (int64_t j = 0; j < n; ++j) to[j] = from[c + j];
  }

  BlockColumns(const FusedArgs& a, int64_t c, int64_t n) {
    for (int i = 0; i < a.num_terms && i < kPrepared; ++i) {
      const RescaleArgs& e = a.terms[i].epilogue;
      fill(e.col_offset, c, n, 0.0f, offset[i]);
      fill(e.col_scale, c, n, 0.0f, scale[i]);
      fill(e.bias, c, n, 0.0f, bias[i]);
    }
    fill(a.post_scale, c, n, 1.0f, post_scale);
    fill(a.post_shift, c, n, -0.0f, post_shift);
  }
};

// The epilogue, with one head, of a row's sums. kRow: some of it is the row's own.
template <bool kRow, bool kScaled, bool kAdd, class R>
inline void rescale_row_as(const BlockColumns<R>& columns, const RescaleArgs& e, int number,
                           int64_t row, const int32_t* acc, const typename R::Lanes& lanes,
                           typename R::Float* y) {
  using Float = typename R::Float;
  Float row_offset, row_scale;
  if constexpr (kRow) row_offset = R::all(e.row_offset != nullptr ? e.row_offset[row] : 1.0f);
  if constexpr (kScaled) row_scale = R::all(e.row_scale[row]);
  unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
    constexpr int64_t kAt = R::kLanes * K;
    Float v = R::template sums<K>(lanes, acc + kAt);
    Float offset = R::load(columns.offset[number] + kAt);
    if constexpr (kRow) offset = row_offset * offset;
    v = (v - offset) * R::load(columns.scale[number] + kAt);
    if constexpr (kScaled) v = v * row_scale;
    v = v + R::load(columns.bias[number] + kAt);
    y[K] = kAdd ? y[K] + v : v;
  });
}

template <bool kRow, bool kAdd, class R>
inline void rescale_row(const BlockColumns<R>& columns, const FusedTerm& term, int number,
                        int64_t row, int64_t n, int32_t* acc, const typename R::Lanes& lanes,
                        typename R::Float* y) {
  if constexpr (kRow) {
    transform_sums(term, row, acc, n);
    if (term.epilogue.row_scale != nullptr)
      return rescale_row_as<true, true, kAdd>(columns, term.epilogue, number, row, acc, lanes, y);
  }
  rescale_row_as<kRow, false, kAdd>(columns, term.epilogue, number, row, acc, lanes, y);
}

template <class I>
__attribute__((noinline)) void unpack_any(I isa, const uint8_t* packed, int bits, int64_t n,
                                          uint8_t* codes) {
  with_bits(bits, [&]<int B>() { unpack_codes<B>(isa, packed, n, codes); });
}

// As add_own; the usual width without a call.
template <class R>
inline void own_row(const BlockColumns<R>& columns, const uint8_t* own, int bits, int64_t n,
                    float factor, typename R::Float* y) {
  constexpr int64_t kColumns = 4 * R::kLanes;
  uint8_t codes[kColumns];
  if (R::kWholeBlock && bits == 4) {
    unpack_eights<4>(typename R::Isa{}, own, kColumns / 8, codes);
  } else {
    unpack_any(typename R::Isa{}, own, bits, n, codes);
  }
  const auto term = [&]<int K>() __attribute__((always_inline)) {
    constexpr int64_t kAt = R::kLanes * K;
    return (R::codes(codes + kAt) - R::load(columns.offset[0] + kAt)) *
           R::load(columns.scale[0] + kAt);
  };
  unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
    if (factor == 1.0f) {
      y[K] = y[K] + term.template operator()<K>();
    } else {
      y[K] = y[K] + R::all(factor) * term.template operator()<K>();
    }
  });
}

// As combine_span.
template <class R>
inline void combine_row(const float* x, const typename R::Lanes& lanes, float keep, float teleport,
                        typename R::Float* y) {
  const typename R::Float own = R::all(keep), other = R::all(teleport);
  unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
    y[K] = y[K] * own + R::template load_some<K>(lanes, x + R::kLanes * K) * other;
  });
}

// Where the codes of a block of columns go.
template <class R>
struct BlockOutput {
  bool uniform;  // rows differ in place and factor alone
  RowTarget target;
  int64_t stride;
  const float* inverse;
  float room[4 * R::kLanes];

  void prepare(const FusedArgs& a, const FusedOutput& o, int64_t c, int64_t n) {
    inverse = o.axis != 0 ? inverses_of(typename R::Isa{}, o, a.num_cols, c, n, room) : nullptr;
    uniform = o.widths == nullptr && o.shift == nullptr && o.axis != 0;
    if (uniform) target = row_target(o, a.num_cols, 0);
    stride = packed_row_bytes(a.num_cols, o.bits);
  }
};

// Columns [c, c + n) of a row to all quantizers that read it.
template <class R>
__attribute__((noinline)) void pack_all(const FusedArgs& a, const BlockOutput<R>* outputs,
                                        int64_t row, int64_t c, int64_t n,
                                        const typename R::Lanes& lanes,
                                        const typename R::Float* y) {
  for (int i = 0; i < a.num_outputs; ++i) {
    const FusedOutput& o = a.outputs[i];
    const float* inverse = i < kPrepared ? outputs[i].inverse : nullptr;
    RowTarget target;
    float of_row;
    if (i < kPrepared && outputs[i].uniform) {
      target = outputs[i].target;
      target.to += row * outputs[i].stride;
      target.factor = o.row_factor != nullptr ? o.row_factor[row] : 1.0f;
    } else {
      target = row_target(o, a.num_cols, row);
      if (o.axis == 0)
        inverse = exact_inverses(typename R::Isa{}, target.scale, target.zero_point, 1, &of_row);
    }
    R::pack(target, inverse, c, n, y, lanes);
  }
}

// Codes that are lines in the sums, columns [c, c + n) of all rows.
template <class R>
inline void finish_lines(const FusedArgs& a, const Tile& t, int64_t c, int64_t n) {
  const typename R::Lanes lanes(n);
  for (int i = 0; i < a.num_outputs; ++i) {
    const FusedOutput& o = a.outputs[i];
    const CodeLine& line = a.lines[i];
    const int bits = o.bits;
    const int64_t stride = packed_row_bytes(a.num_cols, bits);
    const uint8_t* least = line.least + c;
    typename R::Float slope[R::kVectors], start[R::kVectors];
    unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
      slope[K] = R::load(line.slope + c + R::kLanes * K);
      start[K] = R::load(line.start + c + R::kLanes * K);
    });
    const int32_t* acc = t.out + (c - t.col_begin);
    uint8_t* to = o.packed + t.row_begin * stride + c / 8 * bits;
    for (int64_t r = t.row_begin; r < t.row_end; ++r, acc += t.stride, to += stride) {
      typename R::Float y[4];
      unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
        y[K] = R::line(R::template sums<K>(lanes, acc + R::kLanes * K), slope[K], start[K]);
      });
      R::write_line(y, least, n, bits, to);
    }
  }
}

// What becomes of a row: floats; codes of one quantizer, the same for all rows; anything.
enum class Finish { kFloats, kCodes, kAny };

// Columns [c, c + n) of all rows of the tiles. kRow: rows have something of their own before they
// are packed; kAffine: a factor and a summand per column follow.
template <bool kRow, bool kAffine, Finish kFinish, class R>
inline void finish_block(const FusedArgs& a, const Tile* tiles, int64_t c, int64_t n) {
  const BlockColumns<R> columns(a, c, n);
  BlockOutput<R> outputs[kPrepared];
  // Stores of bytes may change anything, for all the compiler knows: what every row needs is read
  // through `a` once.
  const int num_terms = a.num_terms;
  for (int i = 0; i < a.num_outputs && i < kPrepared; ++i)
    outputs[i].prepare(a, a.outputs[i], c, n);
  const typename R::Lanes lanes(n);
  const typename R::Packing packing(kFinish == Finish::kCodes ? &outputs[0].target : nullptr,
                                    outputs[0].inverse, c, n);
  uint8_t* packed =
      kFinish == Finish::kCodes ? outputs[0].target.to + c / 8 * packing.bits : nullptr;
  const int64_t packed_stride = kFinish == Finish::kCodes ? outputs[0].stride : 0;
  const float* row_factor = kFinish == Finish::kCodes ? a.outputs[0].row_factor : nullptr;
  const FusedTerm first = a.terms[0];
  bool in_registers = num_terms <= kPrepared;
  for (int i = 0; i < num_terms; ++i) in_registers &= a.terms[i].epilogue.heads == 1;
  const int32_t* order = a.order;
  const float* mixed = a.mixed != nullptr ? a.mixed + c : nullptr;
  float* floats = a.floats != nullptr ? a.floats + c : nullptr;
  const int64_t num_cols = a.num_cols, first_row = a.first_row;
  const typename R::Float least = R::all(a.relu ? 0.0f : -__builtin_inff());
  const float keep = a.keep, teleport = a.teleport;
  const bool affine = !kRow || a.post_scale != nullptr;
  const int own_bits = a.own_bits;
  const int64_t own_stride = packed_row_bytes(num_cols, own_bits);
  const uint8_t* own = a.own != nullptr ? a.own + c / 8 * own_bits : nullptr;
  const float own_factor = a.own_factor;
  const Tile t = tiles[0];
  int32_t* acc = t.out + (c - t.col_begin);
  for (int64_t r = t.row_begin; r < t.row_end; ++r, acc += t.stride) {
    const int64_t row = kRow && order != nullptr ? order[r] : r;
    typename R::Float y[4];
    if (!kRow || in_registers) {
      rescale_row<kRow, false>(columns, first, 0, row, n, acc, lanes, y);
      if constexpr (kRow) {
        for (int i = 1; i < num_terms; ++i) {
          const Tile& more = tiles[i];
          rescale_row<true, true>(
              columns, a.terms[i], i, row, n,
              more.out + (r - more.row_begin) * more.stride + (c - more.col_begin), lanes, y);
        }
        if (own != nullptr) own_row<R>(columns, own + row * own_stride, own_bits, n, own_factor, y);
        if (mixed != nullptr) combine_row<R>(mixed + row * num_cols, lanes, keep, teleport, y);
      }
    } else {
      alignas(64) float buffer[5 * R::kLanes];  // a last vector may begin before its end
      join_terms(typename R::Isa{}, a, tiles, r, row, c, n, buffer, true);
      unrolled<R::kVectors>([&]<int K>() { y[K] = R::load(buffer + R::kLanes * K); });
    }
    unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
      constexpr int64_t kAt = R::kLanes * K;
      if (kAffine && affine)
        y[K] = y[K] * R::load(columns.post_scale + kAt) + R::load(columns.post_shift + kAt);
      y[K] = R::at_least(least, y[K]);
    });
    if constexpr (kFinish == Finish::kFloats) {
      unrolled<R::kVectors>([&]<int K>() __attribute__((always_inline)) {
        R::template store<K>(lanes, y[K], floats + (row - first_row) * num_cols + R::kLanes * K);
      });
    } else if constexpr (kFinish == Finish::kCodes) {
      if (kRow && row_factor != nullptr) {
        const typename R::Float factor = R::all(row_factor[row]);
        unrolled<R::kVectors>([&]<int K>() { y[K] = y[K] * factor; });
      }
      packing.write(y, packed + row * packed_stride);
    } else {
      typename R::Float out[4];
      unrolled<R::kVectors>([&]<int K>() { out[K] = y[K]; });
      pack_all<R>(a, outputs, row, c, n, lanes, out);
    }
  }
}

// The variant is chosen for whole blocks of columns; others are few.
template <class R>
inline void finish_block(const FusedArgs& a, const Tile* tiles, int64_t c, int64_t n) {
  const FusedTerm& t = a.terms[0];
  const FusedOutput* only = a.num_outputs == 1 ? a.outputs : nullptr;
  const bool codes =
      only != nullptr && only->widths == nullptr && only->shift == nullptr && only->axis != 0;
  const bool rows = a.num_terms > 1 || a.own != nullptr || a.mixed != nullptr ||
                    a.order != nullptr || t.acc_scale != nullptr || t.acc_offset != nullptr ||
                    t.epilogue.row_offset != nullptr || t.epilogue.row_scale != nullptr ||
                    t.epilogue.heads != 1 || (codes && only->row_factor != nullptr);
  const auto run = [&]<bool kRow, bool kAffine>() {
    if (a.num_outputs == 0) return finish_block<kRow, kAffine, Finish::kFloats, R>(a, tiles, c, n);
    if constexpr (R::kWholeBlock) {
      if (codes) return finish_block<kRow, kAffine, Finish::kCodes, R>(a, tiles, c, n);
    }
    finish_block<true, true, Finish::kAny, R>(a, tiles, c, n);
  };
  if constexpr (R::kWholeBlock) {
    if (!rows && a.post_scale == nullptr) return run.template operator()<false, false>();
    if (!rows) return run.template operator()<false, true>();
  }
  run.template operator()<true, true>();
}

// `RowOf<kWhole, kVectors>`: the Row of a level.
template <template <bool, int> class RowOf>
inline void finish_in_registers(const FusedArgs& a, const Tile* tiles) {
  const Tile& t = tiles[0];
  by_row_blocks<RowOf<true, 4>::kLanes>(
      t.col_end - t.col_begin, [&]<bool kWhole, int kVectors>(int64_t j, int64_t n) {
        if (a.lines != nullptr)
          return finish_lines<RowOf<kWhole, kVectors>>(a, t, t.col_begin + j, n);
        finish_block<RowOf<kWhole, kVectors>>(a, tiles, t.col_begin + j, n);
      });
}

}  // namespace
}  // namespace nodebits
