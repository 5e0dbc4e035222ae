// A number that tells the content of memory from what it was before.
#pragma once

#include <cstdint>

namespace nodebits {

// 64 bits that depend on every byte and on their order; the same for any number of threads.
uint64_t digest(const uint8_t* bytes, int64_t n, int threads);

}  // namespace nodebits
