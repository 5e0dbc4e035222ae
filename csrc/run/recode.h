// Rows of any coding as rows whose fields are their codes, for what reads no other.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "run/tiles.h"

namespace nodebits {

// Names by number, see contract/coding.h.
std::vector<const char*> coding_names();

bool has_coding(int coding, int bits);

// Those rows, padding zero; `coding` exists in `bits`. Null where it is 0: they are such already.
std::unique_ptr<Buffer> recoded(const uint8_t* packed, int64_t rows, int64_t num_cols, int bits,
                                int coding, int threads);

}  // namespace nodebits
