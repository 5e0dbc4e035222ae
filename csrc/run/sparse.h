// Dense float features to sparse rows of codes.
#pragma once

#include <cstdint>

#include "contract/kernels.h"

namespace nodebits {

struct SparseFound {
  int64_t count;  // of codes, or -1 where more than `room` values are not zero
  ScanFlags flags;
};

// Fills the arrays of `a` (counts, first and sums only where all fits), and the front of indices
// and codes (`room` entries each), rows in order.
SparseFound run_scan(const ScanArgs& a, int64_t rows, int32_t* indices, uint8_t* codes,
                     int64_t room, int threads);

}  // namespace nodebits
