// AVX2 and BMI2. This file, and no other, is compiled with their flags.
#define NODEBITS_AVX2 1
#define NODEBITS_AVX512 0

#include <immintrin.h>

#include "common.h"

namespace nodebits {

#include "kernels/level.h"

const Kernels* avx2_kernels() { return &kTable; }

}  // namespace nodebits
