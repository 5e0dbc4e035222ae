// A small, strict reader of JSON: no comments, no trailing commas, no names twice, numbers as the
// grammar has them, nesting and size limited.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nodebits::plan {

struct Json {
  enum class Kind { null, boolean, integer, number, text, list, object };

  Kind kind = Kind::null;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0.0;  // of an integer too
  std::string text;
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> fields;

  bool is(Kind k) const { return kind == k; }
  // A field of an object, or null.
  const Json* find(std::string_view name) const;
};

// Throws PlanError, "FileFormatError", with the position of the fault.
Json read_json(std::string_view text);

}  // namespace nodebits::plan
