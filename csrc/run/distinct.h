// Rows that hold the same bytes, found once (plan/reference.py, distinct_rows).
#pragma once

#include <cstdint>

namespace nodebits {

// A table is looked at while others run: it stays in the nearest cache, and a number fits a byte.
constexpr int64_t kMostDistinct = 256;

// Numbers rows by what they hold, in the order in which that comes first.
//
// firsts: [kMostDistinct], a row of each number. Returns how many numbers there are, or -1 for more
// than `most`; most <= kMostDistinct.
int64_t number_distinct(const uint8_t* rows, int64_t count, int64_t bytes, int64_t most,
                        int threads, uint8_t* numbers, int64_t* firsts);

}  // namespace nodebits
