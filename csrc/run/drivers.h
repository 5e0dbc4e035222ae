// Operators over whole tensors: they split rows among threads and call the kernels of the level in
// use. Arguments were checked before; nothing here looks at shapes.
#pragma once

#include <cstdint>

#include "contract/kernels.h"
#include "run/edge_blocks.h"

namespace nodebits {

void run_pack(const PackArgs& a, int64_t rows, int threads);
void run_unpack(const UnpackArgs& a, int64_t rows, int threads);
void run_gather(const GatherArgs& a, int64_t count, int threads);
void run_quantize(const QuantizeArgs& a, int64_t rows, int threads);
void run_quantize_backward(const QuantizeBackwardArgs& a, int64_t rows, int threads);
void run_gemm(const GemmArgs& a, const WeightArgs& w, int32_t* out, int64_t rows, int threads);
// `blocks` may be null.
void run_spmm(const SpmmArgs& a, int32_t* out, int64_t rows, int64_t table_rows, int threads,
              const EdgeBlocks* blocks);
void run_rescale(const RescaleArgs& a, int64_t rows, int threads);
void run_rescale_floats(const RescaleFloatsArgs& a, int64_t rows, int threads);
// Gradients of the three columns of the epilogue, [num_cols] each.
void run_rescale_backward(const RescaleFloatsArgs& a, int64_t rows, float* const columns[3],
                          int threads);
void run_edge_softmax(const SoftmaxArgs& a, int64_t rows, int threads);

}  // namespace nodebits
