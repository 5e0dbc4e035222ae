#include "capi/text.h"

#include <algorithm>
#include <cstdint>

namespace nodebits {

bool valid_utf8(std::string_view text) {
  const auto byte = [&](size_t at) { return at < text.size() ? uint8_t(text[at]) : 0; };
  for (size_t i = 0; i < text.size();) {
    const uint8_t first = byte(i);
    int more = 0;
    uint8_t low = 0x80, high = 0xBF;  // bounds of the second byte
    if (first < 0x80) {
      ++i;
      continue;
    }
    if (first >= 0xC2 && first <= 0xDF) {
      more = 1;
    } else if (first >= 0xE0 && first <= 0xEF) {
      more = 2;
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      more = 3;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    if (byte(i + 1) < low || byte(i + 1) > high) return false;
    for (int k = 2; k <= more; ++k) {
      if ((byte(i + k) & 0xC0) != 0x80) return false;
    }
    i += size_t(more) + 1;
  }
  return true;
}

size_t values_of(std::string_view json) {
  return static_cast<size_t>(std::count_if(
      json.begin(), json.end(), [](char c) { return c == ',' || c == '[' || c == '{'; }));
}

bool too_many(size_t values, size_t bytes) {
  // A part of the promise that reading takes 20 bytes per byte of the file, and 64 MiB
  // (core/strict_json.py has the same numbers).
  constexpr size_t kValueBytes = 100, kPerByte = 12, kSlack = size_t{32} << 20;
  return values * kValueBytes > kPerByte * bytes + kSlack;
}

}  // namespace nodebits
