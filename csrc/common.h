// What every translation unit shares: argument structs and the table of kernels that one
// instruction-set level provides. Nothing here may have external linkage and a body: an inline
// function compiled at two levels would be merged by the linker, and the survivor could hold
// instructions that the processor lacks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace nodebits {

#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "packed rows are read as little-endian words");
#endif

// Columns [0, num_cols) of b-bit codes, low bits first; a row ends on a byte boundary and its
// padding bits are zero.
static constexpr int64_t packed_row_bytes(int64_t num_cols, int bits) {
  return (num_cols * bits + 7) / 8;
}

// A rectangle of int32 results: element (r, c) of rows [row_begin, row_end) and columns [col_begin,
// col_end) goes to out[(r - row_begin) * stride + c - col_begin]; nothing else is written. `out`
// needs no alignment.
struct Tile {
  int64_t row_begin;
  int64_t row_end;
  int64_t col_begin;
  int64_t col_end;
  int32_t* out;
  int64_t stride;
};

struct PackArgs {
  const uint8_t* codes;  // [rows, num_cols]
  uint8_t* packed;       // [rows, packed_row_bytes]
  int64_t num_cols;
  int bits;
};

struct UnpackArgs {
  const uint8_t* packed;
  uint8_t* codes;
  int64_t num_cols;
  int bits;
  const int32_t* order = nullptr;  // row r of `packed` is row order[r] of `codes`; null: row r
  const uint8_t* shift = nullptr;  // [rows of codes], by which they are shifted left; null: 0
};

// Repacks rows of `bits` as rows of `wide_bits`, the next width that has a summing kernel.
struct WidenArgs {
  const uint8_t* packed;
  uint8_t* wide;
  int64_t num_cols;
  int bits;
  int wide_bits;
};

// axis -1: one scale; 0: one per row; 1: one per column. Exactly one of `packed` and `codes` is
// set.
struct QuantizeArgs {
  const float* x;
  const float* scale;
  const float* zero_point;
  const float* row_factor;  // may be null
  uint8_t* packed;
  float* codes;
  int64_t num_cols;
  int axis;
  int bits;
};

enum class Gradient : int { kClip = 0, kPass = 1, kStrict = 2 };

// Row sums go to grad_scale/grad_zero_point when axis is 0, otherwise to the partial sums of the
// row block: one double each (axis -1) or num_cols doubles each (axis 1), zeroed by the caller.
struct QuantizeBackwardArgs {
  const float* grad;
  const float* x;
  const float* scale;
  const float* zero_point;
  float* grad_x;
  float* grad_scale;
  float* grad_zero_point;
  int64_t num_cols;
  int axis;
  int bits;
  Gradient mode;
};

struct WeightArgs {
  const uint8_t* packed;  // [num_out, packed_row_bytes(depth, bits)], two's complement fields
  int64_t num_out;
  int64_t depth;
  int bits;
  bool midrise;  // field c stands for 2c + 1
};

struct GemmArgs {
  const uint8_t* x;   // [rows, packed_row_bytes(depth, x_bits)], unsigned fields
  const void* panel;  // the level's own weight layout
  int64_t depth;
  int64_t num_out;
  int x_bits;
};

struct SpmmArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const uint8_t* packed;
  const uint8_t* weight;  // [edges, heads]; null for the unit-weight sum
  int64_t num_edges;      // of the whole graph: what `indices` holds
  int64_t num_cols;
  int64_t table_bytes;  // size of `packed`: loads past a row are allowed only inside it
  int64_t heads;
  int bits;
};

// Bytes of a row's accumulator in sum_segments, for one block of columns: 64 columns of bytes, else
// 128.
static constexpr int64_t kSumBytes = 256;
static constexpr int64_t segment_columns(int bits) { return bits == 8 ? 64 : 128; }

// Edges of consecutive rows into one block of sources and one block of columns.
struct SegmentArgs {
  const uint8_t* table;      // first byte of the columns in the block's first row
  const uint8_t* table_end;  // of the whole table
  int64_t stride;
  const uint16_t* sources;  // row in the block of every edge
  const int32_t* counts;    // edges of every row
  uint8_t* acc;             // added to; the order of columns is the level's own
  int64_t acc_stride;
  int64_t rows;
  int bytes;  // of the block of columns: at most 8 * bits of segment_columns
  int bits;   // 1, 2, 4 or 8
  bool wide;  // 32-bit sums, which take twice kSumBytes, except for bytes; bytes have no others
};

struct RescaleArgs {
  const int32_t* acc;       // [rows, num_cols]
  const float* col_scale;   // [num_cols]
  const float* col_offset;  // [num_cols]; null: nothing is subtracted
  const float* row_offset;  // [rows, heads]; null: all 1
  const float* row_scale;   // [rows, heads]; null: all 1
  const float* bias;  // [num_cols]; all -0 where there is none, which leaves every float as it is
  float* out;
  int64_t num_cols;
  int64_t heads;
};

// A step of propagation on rows of byte codes, see kernels/propagate.h. All parameters have `lanes`
// values: 4, 8 or 16, those past num_cols 0 (scales 1).
struct LaneArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const uint16_t* short_indices;  // the same, or null
  const uint8_t* table;           // [rows, lanes]; null: nothing is summed, `x` becomes codes
  const float* scale;
  const float* zero_point;
  int bits;
  const float* factor;  // [rows] or null
  const float* x;       // [rows, lanes]
  float keep;
  float teleport;
  float* out;     // [rows, num_cols], or null: the result becomes codes
  uint8_t* next;  // [rows, lanes]
  const float* next_scale;
  const float* next_made_with;
  int next_bits;
  int64_t num_cols;
  int lanes;
};

// Rows in slices of 64 / lanes, see sliced.h. Parameters of columns are repeated to 16.
struct SliceArgs {
  const int64_t* starts;        // [slices + 1], first step of every slice
  const int32_t* edges;         // [steps][64 / lanes] rows of the table; or null
  const uint16_t* short_edges;  // the same, or null
  const uint8_t* table;         // [rows + 1, lanes], the last row zero; null: `x` becomes codes
  const float* scale;
  const float* zero_point;
  int bits;
  const float* factor;  // [rows]
  const float* degree;  // [rows]
  const float* x;       // [rows, lanes]
  float keep;
  float teleport;
  float* out;     // [rows, lanes], or null: the result becomes codes
  uint8_t* next;  // [rows, lanes]
  const float* next_scale;
  const float* next_made_with;
  int next_bits;
  int lanes;
};

// state = stepped + coefficient * (spread, or stepped - state - spread).
struct CorrectArgs {
  const float* stepped;
  const float* spread;
  float* state;
  float coefficient;
  bool laplacian;
};

// One summand of a fused result: its epilogue (acc and out are not used), and what its integers are
// turned into first.
struct FusedTerm {
  RescaleArgs epilogue;
  const int32_t* acc_scale;   // [rows]; null: all 1
  const int32_t* acc_offset;  // [rows]; null: all 0
};

// A quantizer that reads a fused result, and where its codes go: rows of `bits`; or, with `widths`,
// rows of several widths, grouped as in bucketed.h (`position`), or as bytes (`shift`).
struct FusedOutput {
  const float* scale;       // one (axis -1), [rows] (0) or [num_cols] (1)
  const float* zero_point;  // likewise (axis -1 and 1); with `widths` one of these for every width
  const float* row_factor;  // [rows]; may be null
  uint8_t* packed;
  int64_t bytes;  // of `packed`
  int axis;
  int bits;
  const uint8_t* widths;    // [rows]; null: `bits` for all
  const int32_t* position;  // [rows], place in the bucket of its width; null: bytes
  const uint8_t* shift;     // [rows], e: bytes hold codes times 2^e, of values over scale 2^e
  int64_t bucket_begin[9];  // byte at which the bucket of a width begins, with `position`
};

struct FusedArgs {
  const FusedTerm* terms;
  int num_terms;
  const int32_t* order;  // row r of the tiles is row order[r] of everything else; null: row r
  const uint8_t* own;  // packed rows added as own_factor * ((code - col_offset) * col_scale) of the
                       // first term; may be null
  int own_bits;
  float own_factor;
  const float* mixed;  // [rows, num_cols]: y = y * keep + mixed * teleport, last; may be null
  float keep;
  float teleport;
  const float* post_scale;  // [num_cols]: y = y * post_scale + post_shift, before relu; may be null
  const float* post_shift;  // likewise
  bool relu;
  const FusedOutput* outputs;
  int num_outputs;
  float* floats;  // [rows, num_cols]; where there are no outputs
  int64_t num_cols;
};

struct ScanFlags {
  bool negative;  // a value is negative
  bool mixed;     // a row has two different codes
  bool finite;    // no value is NaN or infinite
};

struct ScanArgs {
  const float* x;   // [rows, num_cols]
  float* extent;    // [rows], largest magnitude
  int64_t* counts;  // [rows], values that are not zero
  int32_t* first;   // [rows], code of the first of them
  int32_t* sums;    // [rows], sum of their codes
  uint8_t* packed;  // [rows, packed_row_bytes]
  float* scale;     // [rows]; not null: dense codes in `packed` instead of sparse ones
  int64_t num_cols;
  float min_scale;  // a smaller scale becomes 1
  int bits;
  bool symmetric;  // with `packed`: codes of both signs, around 2^(bits - 1)
};

struct SoftmaxArgs {
  const int64_t* indptr;
  const int32_t* indices;
  const float* score_src;  // [sources, heads]
  const float* score_dst;  // [rows, heads]
  uint8_t* codes;          // [edges, heads]
  int32_t* row_sum;        // [rows, heads]
  int64_t heads;
  float negative_slope;
  int bits;
};

// One level's kernels. Each runs rows [begin, end), or a tile, on the calling thread and writes no
// other output.
struct Kernels {
  void (*pack)(const PackArgs&, int64_t begin, int64_t end);
  void (*unpack)(const UnpackArgs&, int64_t begin, int64_t end);
  void (*widen)(const WidenArgs&, int64_t begin, int64_t end);
  void (*quantize)(const QuantizeArgs&, int64_t begin, int64_t end);
  void (*quantize_backward)(const QuantizeBackwardArgs&, int64_t begin, int64_t end,
                            double* scale_sum, double* zero_point_sum);
  size_t (*panel_bytes)(const WeightArgs&);
  void (*make_panel)(const WeightArgs&, void* panel);
  // Tiles begin and end at multiples of 64 columns (gemm) or of 8 (spmm), or end at the last
  // column.
  void (*gemm)(const GemmArgs&, const Tile&);
  void (*spmm)(const SpmmArgs&, const Tile&);
  void (*spmm_weighted)(const SpmmArgs&, const Tile&);
  // Width in which the two want rows of a given width: itself where there is a kernel for it.
  uint8_t spmm_bits[9];
  uint8_t weighted_bits[9];
  int64_t (*sum_segments)(const SegmentArgs&);  // edges that it summed
  // out[c] = element at[c] of one row's accumulator, which has 64 readable bytes behind it.
  void (*read_sums)(const uint8_t* acc, bool wide, const int32_t* at, int64_t columns,
                    int32_t* out);
  void (*rescale)(const RescaleArgs&, int64_t begin, int64_t end);
  void (*edge_softmax)(const SoftmaxArgs&, int64_t begin, int64_t end);
  // Over n values: y = y * keep + x * teleport; change = stepped - state; a correction.
  void (*combine)(const float* x, float* y, int64_t n, float keep, float teleport);
  void (*change)(const float* stepped, const float* state, float* change, int64_t n);
  void (*correct)(const CorrectArgs&, int64_t n);
  // Goes on from one int32 tile per term, all of the same rows and columns; tiles begin at
  // multiples of 8 columns. The tiles are overwritten.
  void (*finish)(const FusedArgs&, const Tile* tiles);
  // Float rows [rows, num_cols] to one quantizer's codes, as after a fused result. Where `finite`
  // is not null it becomes false if a value is NaN or infinite.
  void (*quantize_mixed)(const FusedOutput&, const float* x, int64_t num_cols, int64_t begin,
                         int64_t end, bool* finite);
  // See kernels/scan.h. `values` has room for one row.
  int64_t (*scan)(const ScanArgs&, int64_t begin, int64_t end, int32_t* indices, uint8_t* codes,
                  float* values, int64_t room, ScanFlags* flags);
  void (*lane_rows)(const LaneArgs&, int64_t begin, int64_t end);
  void (*lane_slices)(const SliceArgs&, int64_t begin, int64_t end);  // null: the level has none
};

const Kernels* scalar_kernels();
const Kernels* avx2_kernels();    // defined only where NODEBITS_HAS_AVX2 is
const Kernels* avx512_kernels();  // defined only where NODEBITS_HAS_AVX512 is
const Kernels* amx_kernels();     // defined only where NODEBITS_HAS_AMX is

}  // namespace nodebits
