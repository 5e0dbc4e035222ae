// The level that every processor of the architecture runs: portable C++, and whatever vectors the
// compiler makes of it.
#pragma once

#include "isa/isa.h"
#include "isa/vec16.h"

namespace nodebits {
namespace {

struct Scalar {
  static constexpr const char* kMissing = "";
  using ByteVectors = Vectors<Vec16>;
  static constexpr bool kSharedRegister = false;

  static bool supported() { return true; }
};

using Isa = Scalar;

}  // namespace
}  // namespace nodebits
