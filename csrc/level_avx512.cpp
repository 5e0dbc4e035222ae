// AVX-512 F, BW, DQ, VL, VNNI, VBMI and GFNI. This file, and no other, is compiled with their
// flags.
#define NODEBITS_AVX2 1
#define NODEBITS_AVX512 1

#include <immintrin.h>

#include "common.h"

namespace nodebits {

#include "kernels/level.h"

const Kernels* avx512_kernels() { return &kTable; }

}  // namespace nodebits
