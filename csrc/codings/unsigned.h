// Fields that are their codes: the rule, and the only coding that every kernel reads.
#pragma once

#include "contract/coding.h"

namespace nodebits {
namespace {

template <>
struct Coding<0> {
  static constexpr const char* kName = "unsigned";
  static constexpr bool has(int bits) { return bits >= 1 && bits <= 8; }
  static constexpr int kAbove = 0;
  template <int B, class V>
  static constexpr V numbers(V fields) {
    return fields;
  }
};

}  // namespace
}  // namespace nodebits
