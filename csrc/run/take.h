// Rows of a table by their numbers, as bytes: whatever they hold, it is not looked at.
#pragma once

#include <cstdint>

namespace nodebits {

// Rows of `row_bytes` bytes, at the places `index`, one after the other.
void take_rows(const uint8_t* table, int64_t row_bytes, const int64_t* index, int64_t rows,
               uint8_t* out, int threads);

// Where rows of the lengths of those at `index` begin, [rows + 1].
void take_indptr(const int64_t* indptr, const int64_t* index, int64_t rows, int64_t* out);

// Rows of different lengths, of `item` bytes per entry.
void take_lists(const uint8_t* table, int64_t item, const int64_t* indptr, const int64_t* index,
                int64_t rows, const int64_t* out_indptr, uint8_t* out, int threads);

}  // namespace nodebits
