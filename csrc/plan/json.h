// JSON as a tree, where it is small and all of it is wanted. No name may stand twice.
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

// Throws PlanError, "FileFormatError", which says what is wrong where.
Json read_json(std::string_view text);

}  // namespace nodebits::plan
