// The end of a table, where a whole vector cannot be read.
#pragma once

#include <cstdint>

namespace nodebits {
namespace {

// The n bytes at p, zeros after them. Volatile, for of a plain loop the compiler makes a call of
// memcpy: the loop that the call stands in could keep no sums in vector registers, even where the
// call is never made (u4 rows of 100 columns on AVX2 took a quarter more).
template <int kBytes>
struct Tail {
  alignas(kBytes) uint8_t bytes[kBytes] = {};

  Tail(const volatile uint8_t* p, int n) {
    for (int i = 0; i < n; ++i) bytes[i] = p[i];
  }
};

}  // namespace
}  // namespace nodebits
