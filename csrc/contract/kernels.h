// The contract: plain structs of arguments (the other headers here), and the table of kernels that
// one instruction-set level fills. No Python, no allocation, no threads.
//
// Nothing here may have external linkage and a body: an inline function compiled at two levels
// would be merged by the linker, and the survivor could hold instructions that the processor lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "contract/epilogues.h"
#include "contract/gates.h"
#include "contract/outer.h"
#include "contract/pairs.h"
#include "contract/products.h"
#include "contract/propagation.h"
#include "contract/rows.h"

namespace nodebits {

// One level's kernels. Each runs rows [begin, end), or a tile, on the calling thread and writes no
// other output.
struct Kernels {
  void (*pack)(const PackArgs&, int64_t begin, int64_t end);
  void (*unpack)(const UnpackArgs&, int64_t begin, int64_t end);
  void (*gather)(const GatherArgs&, int64_t begin, int64_t end);
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
  void (*reduce)(const SpmmArgs&, const Tile&);  // all of Reduce but sums
  // Width in which the two want rows of a given width: itself where there is a kernel for it.
  uint8_t spmm_bits[9];
  uint8_t weighted_bits[9];
  int64_t (*sum_segments)(const SegmentArgs&);  // edges that it summed
  // out[c] = element at[c] of one row's accumulator, which has 64 readable bytes behind it.
  void (*read_sums)(const uint8_t* acc, bool wide, const int32_t* at, int64_t columns,
                    int32_t* out);
  void (*rescale)(const RescaleArgs&, int64_t begin, int64_t end);
  void (*rescale_floats)(const RescaleFloatsArgs&, int64_t begin, int64_t end);
  // Adds to sums [3, num_cols]: of col_scale, col_offset and bias.
  void (*rescale_backward)(const RescaleFloatsArgs&, int64_t begin, int64_t end, double* sums);
  void (*edge_softmax)(const SoftmaxArgs&, int64_t begin, int64_t end);
  // Scores [edges of the rows, heads] of pairs, and sums of them.
  void (*pair_scores)(const ScoreArgs&, int64_t begin, int64_t end, const PairRoom&, float* scores);
  void (*rectified_sum)(const PairSumArgs&, int64_t begin, int64_t end, const PairRoom&);
  void (*rectified_softmax)(const PairSumArgs&, int64_t begin, int64_t end, const PairRoom&);
  void (*gated_sum)(const PairSumArgs&, int64_t begin, int64_t end, const PairRoom&);
  void (*modulated_sum)(const ModulatedArgs&, int64_t begin, int64_t end, const GateRoom&);
  void (*gated_product)(const GatedProductArgs&, int64_t begin, int64_t end, const GateRoom&);
  // All columns of some heads of a tile's rows, see contract/outer.h.
  void (*outer_sum)(const OuterArgs&, const Tile&, const OuterRoom&);
  // Over n values: y = y * keep + x * teleport; change = stepped - state; a correction.
  void (*combine)(const float* x, float* y, int64_t n, float keep, float teleport);
  void (*change)(const float* stepped, const float* state, float* change, int64_t n);
  void (*correct)(const CorrectArgs&, int64_t n);
  // Goes on from one int32 tile per term, all of the same rows and columns; tiles begin at
  // multiples of 8 columns. The tiles are overwritten.
  void (*finish)(const FusedArgs&, const Tile* tiles);
  // Rows [begin, end) as far as they have no more edges than most_line_edges; returns where it
  // ended. Null: the level has none.
  int64_t (*sum_lines)(const SumLineArgs&, int64_t begin, int64_t end);
  // Statistics of the rows of four tiles, one for each of Reduce in its order, of the same rows and
  // columns; one that no statistic reads has no memory.
  void (*statistics)(const StatisticsArgs&, const Tile* tiles);
  // Float rows [rows, num_cols] to one quantizer's codes, as after a fused result. Where `finite`
  // is not null it becomes false if a value is NaN or infinite.
  void (*quantize_mixed)(const FusedOutput&, const float* x, int64_t num_cols, int64_t begin,
                         int64_t end, bool* finite);
  // See families/scan.h. `values` has room for one row.
  int64_t (*scan)(const ScanArgs&, int64_t begin, int64_t end, int32_t* indices, uint8_t* codes,
                  float* values, int64_t room, ScanFlags* flags);
  void (*lane_rows)(const LaneArgs&, int64_t begin, int64_t end);
  void (*lane_slices)(const SliceArgs&, int64_t begin, int64_t end);  // null: the level has none
};

// One instruction set, see isa/isa.h.
struct Level {
  const char* missing;  // what a processor on which supported() is false lacks
  bool (*supported)();
  const Kernels* (*kernels)();
};

}  // namespace nodebits
