// The level that every processor of the architecture runs; also the base for a NEON level.
#define NODEBITS_AVX2 0
#define NODEBITS_AVX512 0

#include "common.h"

namespace nodebits {

#include "kernels/level.h"

const Kernels* scalar_kernels() { return &kTable; }

}  // namespace nodebits
