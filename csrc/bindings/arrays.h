// Arrays as they come from Python, and their checks: every array's dtype, shape, contiguity and
// alignment is checked (ShapeError) before a kernel sees it. Outputs are allocated by the caller.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "contract/kernels.h"
#include "run/csr.h"

namespace nb = nanobind;

namespace nodebits {

using In = nb::ndarray<nb::ro, nb::device::cpu>;
using Out = nb::ndarray<nb::device::cpu>;
using OptionalIn = std::optional<In>;
using Ins = std::vector<In>;
using OptionalIns = std::vector<OptionalIn>;

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

template <class A>
std::string shape_of(const A& array) {
  std::string s = "[";
  for (size_t i = 0; i < array.ndim(); ++i)
    s += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  return s + "]";
}

// The array's data as T, if its shape is `shape` and it is contiguous.
template <class T, class A>
auto data(const A& array, const char* name, std::initializer_list<int64_t> shape) {
  bool fits = array.ndim() == shape.size();
  std::string expected = "[";
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    const int64_t n = shape.begin()[i];
    if (fits)
      fits = static_cast<int64_t>(array.shape(i)) == n && (n <= 1 || array.stride(i) == stride);
    stride = static_cast<int64_t>(static_cast<uint64_t>(stride) * static_cast<uint64_t>(n));
  }
  if (stride == 0 && array.ndim() == shape.size()) {  // strides of an empty array mean nothing
    fits = true;
    for (size_t i = 0; i < shape.size(); ++i)
      fits &= static_cast<int64_t>(array.shape(i)) == shape.begin()[i];
  }
  if (!fits || array.dtype() != nb::dtype<T>()) {
    for (int64_t n : shape) expected += (expected.size() > 1 ? ", " : "") + std::to_string(n);
    const std::string message = std::string(name) + " has shape " + shape_of(array) +
                                "; expected a contiguous " + expected +
                                "] array of the documented dtype";
    throw ShapeError(message);
  }
  if (reinterpret_cast<uintptr_t>(array.data()) % alignof(T) != 0)
    throw ShapeError(std::string(name) + " starts at an address that is no multiple of " +
                     std::to_string(alignof(T)) + ": pass a copy (clone)");
  if constexpr (std::is_same_v<A, In>) {
    return static_cast<const T*>(array.data());
  } else {
    return static_cast<T*>(array.data());
  }
}

template <class A>
int64_t size(const A& array, size_t axis, const char* name) {
  if (array.ndim() <= axis) {
    const std::string message =
        std::string(name) + " has shape " + shape_of(array) + ", too few dimensions";
    throw ShapeError(message);
  }
  return static_cast<int64_t>(array.shape(axis));
}

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
