// Vectors that Python owns from here on.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "bindings/arrays.h"

namespace nodebits {

template <class T>
using Array = nb::ndarray<T, nb::ndim<1>, nb::device::cpu>;

template <class T>
Array<T> given(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  if (kept->empty()) kept->reserve(1);  // an array without memory is taken for one that was freed
  T* memory = kept->data();
  const size_t length = kept->size();
  const nb::capsule owner(kept.get(),
                          [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  kept.release();
  return Array<T>(memory, {length}, owner);
}

}  // namespace nodebits
