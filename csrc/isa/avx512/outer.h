// Sums of outer products in words.
#pragma once

#include "isa/avx512/traits.h"
#include "isa/words.h"

namespace nodebits {
namespace {

inline void add_outer(Avx512, const OuterEdges& edges, const int16_t* zero, int64_t num_cols,
                      int32_t* out) {
  add_outer_words(edges, zero, num_cols, out);
}

}  // namespace
}  // namespace nodebits
