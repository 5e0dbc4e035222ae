// Errors of arguments, and the checks of numbers that every caller of the operators makes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "run/csr.h"

namespace nodebits {

// What Python sees as the errors of these names in nodebits.core.errors.
struct ShapeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct GraphError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct CodingError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

inline void check(bool good, const char* message) {
  if (!good) throw ShapeError(message);
}

// Sizes are computed in 64 bits: of more columns those of a row of bits could wrap.
inline void check_cols(int64_t num_cols) {
  check(num_cols >= 0 && num_cols <= int64_t{1} << 48, "num_cols must be 0 to 2^48");
}

inline void check_bits(int bits) { check(bits >= 1 && bits <= 8, "bits must be 1 to 8"); }

inline void check_weight_bits(int bits, bool midrise) {
  check_bits(bits);
  check(!midrise || bits <= 7, "midrise weights have at most 7 bits");
}

inline int64_t scale_length(int axis, int64_t rows, int64_t cols) {
  check(axis >= -1 && axis <= 1, "axis must be -1, 0 or 1");
  return axis < 0 ? 1 : (axis == 0 ? rows : cols);
}

inline void check_indptr(const int64_t* indptr, int64_t rows, int64_t edges) {
  if (indptr[0] == 0 && indptr[rows] == edges && first_descent(indptr, rows) < 0) return;
  throw GraphError("indptr must start at 0, not decrease and end at the number of edges, " +
                   std::to_string(edges));
}

}  // namespace nodebits
