// The kernels of one level, chosen by its type.
#pragma once

#include "contract/kernels.h"
#include "families/fused.h"
#include "families/gates.h"
#include "families/gather.h"
#include "families/gemm.h"
#include "families/lanes.h"
#include "families/outer.h"
#include "families/pack.h"
#include "families/pairs.h"
#include "families/quantize.h"
#include "families/reduce.h"
#include "families/rescale.h"
#include "families/scan.h"
#include "families/segments.h"
#include "families/softmax.h"
#include "families/spmm.h"
#include "families/statistics.h"
#include "families/weighted.h"

namespace nodebits {
namespace {

// Narrow propagation in slices, where a level has it.
template <class I>
constexpr auto slices_of(I) -> decltype(Kernels::lane_slices) {
  return nullptr;
}

// Sums whose codes are lines, where a level has them.
template <class I>
constexpr auto sum_lines_of(I) -> decltype(Kernels::sum_lines) {
  return nullptr;
}

template <class I>
const Kernels* kernels_of(I) {
  static constexpr Kernels kTable = [] {
    Kernels k{};
    k.pack = [](const PackArgs& a, int64_t b, int64_t e) { pack_rows(I{}, a, b, e); };
    k.unpack = [](const UnpackArgs& a, int64_t b, int64_t e) { unpack_rows(I{}, a, b, e); };
    k.gather = [](const GatherArgs& a, int64_t b, int64_t e) { gather_rows(I{}, a, b, e); };
    k.widen = [](const WidenArgs& a, int64_t b, int64_t e) { widen_rows(I{}, a, b, e); };
    k.quantize = [](const QuantizeArgs& a, int64_t b, int64_t e) { quantize_rows(I{}, a, b, e); };
    k.quantize_backward = quantize_backward_rows;
    k.panel_bytes = [](const WeightArgs& w) { return panel_bytes(I{}, w); };
    k.make_panel = [](const WeightArgs& w, void* panel) { make_panel(I{}, w, panel); };
    k.gemm = [](const GemmArgs& a, const Tile& t) { gemm_tile(I{}, a, t); };
    k.spmm = [](const SpmmArgs& a, const Tile& t) { spmm_tile(I{}, a, t); };
    k.spmm_weighted = [](const SpmmArgs& a, const Tile& t) { spmm_weighted_tile(I{}, a, t); };
    k.reduce = [](const SpmmArgs& a, const Tile& t) { reduce_tile(I{}, a, t); };
    k.statistics = statistics_tile;
    for (int b = 0; b <= 8; ++b) {
      k.spmm_bits[b] = kSpmmBits[b];
      k.weighted_bits[b] = weighted_bits(I{}, b);
    }
    k.sum_segments = [](const SegmentArgs& a) { return sum_segments(I{}, a); };
    k.read_sums = [](const uint8_t* acc, bool wide, const int32_t* at, int64_t columns,
                     int32_t* out) { read_sums(I{}, acc, wide, at, columns, out); };
    k.rescale = [](const RescaleArgs& a, int64_t b, int64_t e) { rescale_rows(I{}, a, b, e); };
    k.rescale_floats = [](const RescaleFloatsArgs& a, int64_t b, int64_t e) {
      rescale_float_rows(I{}, a, b, e);
    };
    k.rescale_backward = rescale_backward_rows;
    k.edge_softmax = edge_softmax_rows;
    k.pair_scores = [](const ScoreArgs& a, int64_t b, int64_t e, const PairRoom& room,
                       float* scores) { pair_scores(I{}, a, b, e, room, scores); };
    k.modulated_sum = [](const ModulatedArgs& a, int64_t b, int64_t e, const GateRoom& room) {
      modulated_sum(I{}, a, b, e, room);
    };
    k.gated_product = [](const GatedProductArgs& a, int64_t b, int64_t e, const GateRoom& room) {
      gated_product(I{}, a, b, e, room);
    };
    k.rectified_sum = [](const PairSumArgs& a, int64_t b, int64_t e, const PairRoom& room) {
      rectified_sum(I{}, a, b, e, room);
    };
    k.rectified_softmax = [](const PairSumArgs& a, int64_t b, int64_t e, const PairRoom& room) {
      rectified_softmax(I{}, a, b, e, room);
    };
    k.gated_sum = [](const PairSumArgs& a, int64_t b, int64_t e, const PairRoom& room) {
      gated_sum(I{}, a, b, e, room);
    };
    k.outer_sum = [](const OuterArgs& a, const Tile& t, const OuterRoom& room) {
      outer_sum(I{}, a, t, room);
    };
    k.combine = combine_span;
    k.change = change_span;
    k.correct = correct_span;
    k.finish = [](const FusedArgs& a, const Tile* tiles) { finish_tile(I{}, a, tiles); };
    k.quantize_mixed = [](const FusedOutput& o, const float* x, int64_t num_cols, int64_t b,
                          int64_t e,
                          bool* finite) { quantize_mixed_rows(I{}, o, x, num_cols, b, e, finite); };
    k.scan = [](const ScanArgs& a, int64_t b, int64_t e, int32_t* indices, uint8_t* codes,
                float* values, int64_t room, ScanFlags* flags) {
      return scan_rows(I{}, a, b, e, indices, codes, values, room, flags);
    };
    k.lane_rows = lane_rows;
    k.sum_lines = sum_lines_of(I{});
    k.lane_slices = slices_of(I{});
    return k;
  }();
  return &kTable;
}

}  // namespace
}  // namespace nodebits
