// Page advice for fresh outputs.
#pragma once

#include <cstddef>

namespace nodebits {

// Asks for huge pages behind a large buffer that is about to be written for the first time. A 100
// MB output is 25,000 page faults otherwise, which take longer than summing the neighbours does.
// Only a hint.
void prefer_huge_pages(void* memory, size_t bytes);

}  // namespace nodebits
