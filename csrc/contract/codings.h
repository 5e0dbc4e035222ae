// All codings, and the choice of one by its number.
#pragma once

#include <utility>

#include "codings.inc"  // made by CMakeLists.txt: the headers of csrc/codings, kCodings
#include "contract/coding.h"

namespace nodebits {
namespace {

// Calls f.template operator()<Coding<coding>>(); does nothing where there is none.
template <class F>
inline void with_coding(int coding, const F& f) {
  [&]<int... N>(std::integer_sequence<int, N...>) {
    ((coding == N ? f.template operator()<Coding<N>>() : void()), ...);
  }(std::make_integer_sequence<int, kCodings>{});
}

}  // namespace
}  // namespace nodebits
