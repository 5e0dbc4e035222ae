// Page advice for fresh outputs, and the size of the cache next to a core.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nodebits {

// Asks for huge pages behind a large buffer that is about to be written for the first time. A 100
// MB output is 25,000 page faults otherwise, which take longer than summing the neighbours does.
// Only a hint.
void prefer_huge_pages(void* memory, size_t bytes);

// Zeroed pages of their own, which go back to the system at once when they are given back: a heap
// would keep them, and what a forward holds at its worst moment would be what it ever held. Null
// where the system has none.
void* map_pages(size_t bytes);
void unmap_pages(void* memory, size_t bytes);

// Bytes of the cache that one core has for itself (level 2); a common size where the system does
// not say.
int64_t core_cache_bytes();

}  // namespace nodebits
