// Content of memory as 64 bits: folded 128-bit products, as in wyhash (public domain, Wang Yi).
#include "run/digest.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "run/pool.h"

namespace nodebits {
namespace {

constexpr int64_t kChunk = 1 << 17;  // bytes that one task reads
constexpr uint64_t kKeys[4] = {0xa0761d6478bd642fULL, 0xe7037ed1a0b428dbULL, 0x8ebc6af09c88c6e3ULL,
                               0x589965cc75374cc3ULL};

inline uint64_t folded(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t word(const uint8_t* p) {
  uint64_t w;
  std::memcpy(&w, p, sizeof(w));
  return w;
}

uint64_t of_chunk(const uint8_t* p, int64_t n) {
  // Four chains: a product waits for the one before it, which memory does not.
  uint64_t chain[4] = {kKeys[0], kKeys[1], kKeys[2], kKeys[3]};
  for (; n >= 64; n -= 64, p += 64) {
    for (int i = 0; i < 4; ++i)
      chain[i] = folded(word(p + 16 * i) ^ kKeys[i], word(p + 16 * i + 8) ^ chain[i]);
  }
  uint8_t rest[64] = {};
  if (n > 0) std::memcpy(rest, p, static_cast<size_t>(n));
  uint64_t h = static_cast<uint64_t>(n);
  for (int i = 0; i < 4; ++i) {
    chain[i] = folded(word(rest + 16 * i) ^ kKeys[i], word(rest + 16 * i + 8) ^ chain[i]);
    h = folded(h ^ kKeys[i], chain[i] ^ kKeys[(i + 1) % 4]);
  }
  return h;
}

}  // namespace

uint64_t digest(const uint8_t* bytes, int64_t n, int threads) {
  const int64_t chunks = std::max<int64_t>(1, (n + kChunk - 1) / kChunk);
  std::vector<uint64_t> parts(static_cast<size_t>(chunks));
  const auto task = [&](int64_t i) {
    parts[static_cast<size_t>(i)] = of_chunk(bytes + i * kChunk, std::min(kChunk, n - i * kChunk));
  };
  if (chunks == 1) {
    task(0);
  } else {
    parallel_for(chunks, threads, task);
  }
  uint64_t h = static_cast<uint64_t>(n);
  for (const uint64_t part : parts) h = folded(h ^ kKeys[0], part ^ kKeys[1]);
  return h;
}

}  // namespace nodebits
