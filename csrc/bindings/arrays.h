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
#include <string>
#include <type_traits>
#include <vector>

#include "run/records.h"

namespace nb = nanobind;

namespace nodebits {

using In = nb::ndarray<nb::ro, nb::device::cpu>;
using Out = nb::ndarray<nb::device::cpu>;
using OptionalIn = std::optional<In>;
using Ins = std::vector<In>;
using OptionalIns = std::vector<OptionalIn>;

template <class A>
std::string shape_of(const A& array) {
  std::string s = "[";
  for (size_t i = 0; i < array.ndim(); ++i)
    s += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  return s + "]";
}

// The array's data as T, if its shape is `shape` and it is contiguous.
template <class T, class A>
auto data_of(const A& array, const char* name, std::initializer_list<int64_t> shape) {
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

template <class... P>
struct Access<nb::ndarray<P...>> {
  using Array = nb::ndarray<P...>;

  template <class T>
  static auto data(const Array& array, const char* name, std::initializer_list<int64_t> shape) {
    return data_of<T>(array, name, shape);
  }

  static int64_t size(const Array& array, int axis, const char* name) {
    if (array.ndim() <= static_cast<size_t>(axis)) {
      const std::string message =
          std::string(name) + " has shape " + shape_of(array) + ", too few dimensions";
      throw ShapeError(message);
    }
    return static_cast<int64_t>(array.shape(static_cast<size_t>(axis)));
  }
};

}  // namespace nodebits
