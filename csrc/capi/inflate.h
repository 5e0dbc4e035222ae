// Deflated data, as zlib makes it: the contents of a model file (docs/format.md).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace nodebits {

// Decodes a raw stream (RFC 1951) of so many bytes: takes no more memory than these, whatever the
// stream says. False where it is damaged, or of another length; `used` is where it ends.
bool inflate(std::string_view deflated, size_t bytes, std::string* text, size_t* used);

}  // namespace nodebits
