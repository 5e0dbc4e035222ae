// AVX-512 F, BW, DQ, VL, VNNI, VBMI and GFNI.
#pragma once

#include "isa/avx512/finish.h"
#include "isa/avx512/gemm.h"
#include "isa/avx512/outer.h"
#include "isa/avx512/pack.h"
#include "isa/avx512/pairs.h"
#include "isa/avx512/scan.h"
#include "isa/avx512/slices.h"
#include "isa/avx512/sum_lines.h"
#include "isa/avx512/sums.h"
#include "isa/avx512/weighted.h"

namespace nodebits {
namespace {

using Isa = Avx512;

}  // namespace
}  // namespace nodebits
