// madvise and sysconf where the system has them.
#include "run/memory.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace nodebits {

void prefer_huge_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kWorthIt =
      size_t{4} << 20;  // smaller blocks come from the heap, whose pages exist already
  constexpr uintptr_t kPage = 4096;
  if (bytes < kWorthIt) return;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

void* map_pages([[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
#else
  return nullptr;
#endif
}

void unmap_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  munmap(memory, bytes);
#endif
}

int64_t core_cache_bytes() {
  constexpr int64_t kCommon = 1 << 20;
#if defined(__linux__) && defined(_SC_LEVEL2_CACHE_SIZE)
  const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  // Some virtual machines report none; a cache of many megabytes is one that cores share.
  return bytes >= 1 << 18 ? (bytes <= 1 << 22 ? bytes : 1 << 22) : kCommon;
#else
  return kCommon;
#endif
}

}  // namespace nodebits
