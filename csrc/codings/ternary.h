// -1, 0 and 1 in two's complement, in two bits: codes 0, 1 and 2.
#pragma once

#include "contract/coding.h"

namespace nodebits {
namespace {

template <>
struct Coding<1> {
  static constexpr const char* kName = "ternary";
  static constexpr bool has(int bits) { return bits == 2; }
  // With its sign flipped a number of two bits is itself plus 2, which is its code plus 1.
  static constexpr int kAbove = 1;
  template <int B, class V>
  static constexpr V numbers(V fields) {
    return fields ^ V::fill(0xaa);
  }
};

}  // namespace
}  // namespace nodebits
