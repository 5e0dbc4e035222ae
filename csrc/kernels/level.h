// All kernels of one level, in an order that resolves their uses. The including file defines
// NODEBITS_AVX2 and NODEBITS_AVX512 (0 or 1) and opens its namespace; everything here has internal
// linkage, see common.h.

namespace {

#include "pack.h"
//
#include "quantize.h"
//
#include "rescale.h"
//
#include "propagate.h"
//
#if NODEBITS_AVX512
#include "slices_avx512.h"
#endif
//
#include "fused.h"
//
#include "scan.h"
//
#include "softmax.h"
//
#include "vec16.h"
#if NODEBITS_AVX2
#include "vec32.h"
#endif
#if NODEBITS_AVX512
#include "vec64.h"
#endif
//
#include "spmm.h"
//
#include "segments.h"
//
#if NODEBITS_AVX512
#include "spmm_weighted_avx512.h"
#else
#include "spmm_weighted.h"
#endif
//
#include "gemm_weight.h"
#if NODEBITS_AVX512
#include "gemm_avx512.h"
#elif NODEBITS_AVX2
#include "gemm_avx2.h"
#else
#include "gemm_generic.h"
#endif

constexpr Kernels kTable = [] {
  Kernels k = {
      pack_rows,
      unpack_rows,
      widen_rows,
      quantize_rows,
      quantize_backward_rows,
      panel_bytes,
      make_panel,
      gemm_tile,
      spmm_tile,
      spmm_weighted_tile,
      {},
      {},
      sum_segments,
      read_sums,
      rescale_rows,
      edge_softmax_rows,
      combine_span,
      change_span,
      correct_span,
      finish_tile,
      quantize_mixed_rows,
      scan_rows,
      lane_rows,
#if NODEBITS_AVX512
      lane_slices,
#else
      nullptr,
#endif
  };
  for (int b = 0; b <= 8; ++b) {
    k.spmm_bits[b] = kSpmmBits[b];
    k.weighted_bits[b] = kWeightedBits[b];
  }
  return k;
}();

}  // namespace
