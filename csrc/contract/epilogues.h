// What integer sums become: floats, or the packed rows of the next layer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nodebits {

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

// Sums that training keeps as floats (acc and out of the epilogue are not used), and the gradients
// of what becomes of them.
struct RescaleFloatsArgs {
  RescaleArgs epilogue;
  const float* acc;   // [rows, num_cols]
  const float* grad;  // likewise, of the result
  float* out;         // likewise, the result or the gradient of acc
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

// The codes of an output as lines in integer sums: a code is sum * slope + start, rounded half to
// even and cut off at `least` and the largest one. Only where somebody has proven that these are
// the codes (plan/lines.h). Whole blocks of kLineBlock columns, 0 behind the last.
struct CodeLine {
  const float* slope;
  const float* start;
  const uint8_t* least;
};
static constexpr int64_t kLineBlock = 64;

// A statistic of the values that the edges of a row lead to, in the order of Statistic in
// nodebits/ops/definitions/reduce.py.
enum class Statistic : int { kSum, kMean, kLargest, kSmallest, kVariance, kDeviation };

struct StatisticsArgs {
  const int64_t* indptr;
  const float* scale;       // [num_cols]
  const float* zero_point;  // [num_cols]
  const float* moved;       // [rows, num_cols], added to every value of a row's edges; may be null
  const Statistic* kinds;   // [num_kinds]
  int num_kinds;
  float* out;  // [rows, num_kinds, num_cols]
  int64_t num_cols;
};

struct FusedArgs {
  const FusedTerm* terms;
  int num_terms;
  const int32_t* order;  // row r of the tiles is row order[r] of everything else; null: row r
  const uint8_t* own;  // packed rows added as own_factor * ((code - col_offset) * col_scale) of the
                       // first term; may be null
  int own_bits;
  int own_coding;  // see coding.h; kernels read 0
  float own_factor;
  const float* mixed;  // [rows, num_cols]: y = y * keep + mixed * teleport, last; may be null
  float keep;
  float teleport;
  const float* post_scale;  // [num_cols]: y = y * post_scale + post_shift, before relu; may be null
  const float* post_shift;  // likewise
  bool relu;
  const FusedOutput* outputs;
  int num_outputs;
  const CodeLine* lines;  // [num_outputs] of one term's sums, which need nothing else; may be null
  float* floats;          // [rows, num_cols]; where there are no outputs
  int64_t first_row;      // of floats
  int64_t num_cols;
};

}  // namespace nodebits
