// Edges of bytes are read once for two vectors. Sums of narrower fields need more registers than
// there are for two.
#pragma once

#include "families/segments.h"
#include "isa/avx2/traits.h"
#include "isa/pair.h"

namespace nodebits {
namespace {

template <int B>
constexpr auto segment_vectors(Avx2) {
  using Wide = Vec32<Avx2Bits>;
  if constexpr (B == 8) {
    return Vectors<Pair<Wide>, Wide, Vec16>{};
  } else {
    return Avx2::ByteVectors{};
  }
}

}  // namespace
}  // namespace nodebits
