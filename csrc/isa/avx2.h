// AVX2 and BMI2.
#pragma once

#include "isa/avx2/gemm.h"
#include "isa/avx2/outer.h"
#include "isa/avx2/pack.h"
#include "isa/avx2/quantize.h"
#include "isa/avx2/rows.h"
#include "isa/avx2/scan.h"
#include "isa/avx2/segments.h"
#include "isa/avx2/sum_lines.h"
#include "isa/avx2/weighted.h"

namespace nodebits {
namespace {

using Isa = Avx2;

}  // namespace
}  // namespace nodebits
