// The AVX-512 level with products on AMX tiles. This file, and no other, is compiled with its
// flags.
#define NODEBITS_AVX2 1
#define NODEBITS_AVX512 1

#include <immintrin.h>

#include "common.h"

namespace nodebits {

namespace {

#include "kernels/pack.h"
//
#include "kernels/gemm_weight.h"
//
#include "kernels/gemm_amx.h"

}  // namespace

const Kernels* amx_kernels() {
  static const Kernels table = [] {
    Kernels k = *avx512_kernels();
    k.panel_bytes = panel_bytes;
    k.make_panel = make_panel;
    k.gemm = gemm_tile;
    return k;
  }();
  return &table;
}

}  // namespace nodebits
