// The exponential of every level, and of what runs on none: ops/definitions/edges.py states it.
#pragma once

#include <cstdint>

namespace nodebits {
namespace {

// exp(t) for t <= 0; exp(-87) below it and for NaN. Scalar, without branches: loops of it become
// vectors.
inline float exp_nonpositive(float t) {
  // 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the low bits.
  constexpr float kMagic = 12582912.0f;
  t = t > -87.0f ? t : -87.0f;
  const float shifted = t * 1.44269504088896341f + kMagic;
  const float k = shifted - kMagic;
  const float r = (t - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666668e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t power = __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
  return p * __builtin_bit_cast(float, (power + 127) << 23);
}

}  // namespace
}  // namespace nodebits
