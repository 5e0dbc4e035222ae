// A tree of what the reader reads.
#include "plan/json.h"

#include <charconv>
#include <limits>

#include "plan/json_reader.h"
#include "plan/plan.h"

namespace nodebits::plan {
namespace {

void read_number(std::string_view text, Json* made) {
  const char *begin = text.data(), *end = begin + text.size();
  if (text.find_first_of(".eE") == std::string_view::npos) {
    if (std::from_chars(begin, end, made->integer).ec != std::errc())
      throw JsonError("an integer is too large");
    made->kind = Json::Kind::integer;
    made->number = static_cast<double>(made->integer);
    return;
  }
  made->kind = Json::Kind::number;
  if (std::from_chars(begin, end, made->number).ec == std::errc::result_out_of_range) {
    // Too large, or too small: the sign of the exponent says which.
    const size_t e = text.find_first_of("eE");
    const bool tiny = e != std::string_view::npos && text[e + 1] == '-';
    made->number = tiny ? 0.0 : std::numeric_limits<double>::infinity();
    if (text[0] == '-') made->number = -made->number;
  }
}

Json read_value(JsonReader& reader) {
  Json made;
  switch (reader.peek()) {
    case '{':
      made.kind = Json::Kind::object;
      reader.object([&](const std::string& name) {
        if (made.find(name) != nullptr) throw JsonError("the name " + quoted(name) + " twice");
        made.fields.emplace_back(name, read_value(reader));
      });
      break;
    case '[':
      made.kind = Json::Kind::list;
      reader.array([&] { made.items.push_back(read_value(reader)); });
      break;
    case '"':
      made.kind = Json::Kind::text;
      made.text = reader.string();
      break;
    case 't':
    case 'f':
      made.kind = Json::Kind::boolean;
      made.boolean = reader.skip() == "true";
      break;
    case 'n':
      reader.skip();
      break;
    default:
      read_number(reader.skip(), &made);
  }
  return made;
}

}  // namespace

const Json* Json::find(std::string_view name) const {
  for (const auto& [key, item] : fields) {
    if (key == name) return &item;
  }
  return nullptr;
}

Json read_json(std::string_view text) {
  try {
    JsonReader reader(text);
    Json made = read_value(reader);
    reader.end();
    return made;
  } catch (const JsonError& error) {
    throw PlanError("FileFormatError", "the plan is no JSON: " + std::string(error.what()));
  }
}

}  // namespace nodebits::plan
