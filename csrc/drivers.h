// Operators over whole tensors: they split rows among threads and call the kernels of the level in
// use. Arguments were checked before; nothing here looks at shapes.
#pragma once

#include <cstdint>

#include "common.h"

namespace nodebits {

void run_pack(const PackArgs& a, int64_t rows, int threads);
void run_unpack(const UnpackArgs& a, int64_t rows, int threads);
void run_quantize(const QuantizeArgs& a, int64_t rows, int threads);
void run_quantize_backward(const QuantizeBackwardArgs& a, int64_t rows, int threads);
// `a.panel` is set here, from `w`.
void run_gemm(GemmArgs a, const WeightArgs& w, int64_t rows, int threads);
// `a.bits` may be any width: those without a kernel are repacked first.
void run_spmm(SpmmArgs a, int64_t rows, int64_t table_rows, int threads);
void run_rescale(const RescaleArgs& a, int64_t rows, int threads);
void run_edge_softmax(const SoftmaxArgs& a, int64_t rows, int threads);

}  // namespace nodebits
