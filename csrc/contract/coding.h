// How codes lie in the fields of packed rows. A header of csrc/codings gives a Coding<n>, n being
// what nodebits/core/codings calls its number, with
//   kName          its name there
//   has(bits)      whether it exists in this width; of widths other than 1, 2, 4 and 8 no kernel
//                  reads it
//   numbers<B>(v)  of bytes with fields of B bits, in a vector or in `Byte`: each field as an
//                  unsigned number of B bits, by fill, & and ^
//   kAbove         by how much such a number is above the code, at least 0
// Numbers start at 0 and leave none out.
#pragma once

#include <cstdint>

namespace nodebits {
namespace {

template <int kNumber>
struct Coding;

// Eight bits with the operators of a vector of bytes.
struct Byte {
  uint8_t v;

  static constexpr Byte fill(uint8_t x) { return {x}; }
  friend constexpr Byte operator&(Byte a, Byte b) { return {static_cast<uint8_t>(a.v & b.v)}; }
  friend constexpr Byte operator^(Byte a, Byte b) { return {static_cast<uint8_t>(a.v ^ b.v)}; }
};

}  // namespace
}  // namespace nodebits
