// What the text of a header must be before anything is made of it.
#pragma once

#include <cstddef>
#include <string_view>

namespace nodebits {

bool valid_utf8(std::string_view text);

// How many values some JSON holds at most, and whether that is more than so many bytes may: an
// empty list is two bytes of text and many more of memory.
size_t values_of(std::string_view json);
bool too_many(size_t values, size_t bytes);

}  // namespace nodebits
