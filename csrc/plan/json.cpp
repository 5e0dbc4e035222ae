// Recursive descent over the grammar of RFC 8259.
#include "plan/json.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "plan/plan.h"

namespace nodebits::plan {
namespace {

constexpr int kMostDepth = 64;

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json read() {
    Json made = value(0);
    space();
    if (at_ != text_.size()) fail("something follows the value");
    return made;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw PlanError("FileFormatError", "the plan is no JSON: " + std::string(what) +
                                           " at character " + std::to_string(at_));
  }

  void space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }

  void word(std::string_view w) {
    if (text_.substr(at_, w.size()) != w) fail("an unknown word stands");
    at_ += w.size();
  }

  Json value(int depth) {
    if (depth > kMostDepth) fail("lists are nested too deeply");
    space();
    Json made;
    switch (peek()) {
      case '{':
        object(&made, depth);
        break;
      case '[':
        list(&made, depth);
        break;
      case '"':
        made.kind = Json::Kind::text;
        made.text = string();
        break;
      case 't':
        word("true");
        made.kind = Json::Kind::boolean;
        made.boolean = true;
        break;
      case 'f':
        word("false");
        made.kind = Json::Kind::boolean;
        break;
      case 'n':
        word("null");
        break;
      default:
        number(&made);
    }
    return made;
  }

  void object(Json* made, int depth) {
    made->kind = Json::Kind::object;
    ++at_;
    space();
    if (take('}')) return;
    do {
      space();
      if (peek() != '"') fail("a name is missing");
      std::string name = string();
      if (made->find(name) != nullptr) fail("a name stands twice");
      space();
      if (!take(':')) fail("a colon is missing");
      made->fields.emplace_back(std::move(name), value(depth + 1));
      space();
    } while (take(','));
    if (!take('}')) fail("a brace is not closed");
  }

  void list(Json* made, int depth) {
    made->kind = Json::Kind::list;
    ++at_;
    space();
    if (take(']')) return;
    do {
      made->items.push_back(value(depth + 1));
      space();
    } while (take(','));
    if (!take(']')) fail("a bracket is not closed");
  }

  uint32_t hex4() {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) fail("\\u needs four hexadecimal digits");
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    return code;
  }

  void escape(std::string* to) {
    const char c = peek();
    ++at_;
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t i = kFrom.find(c); c != '\0' && i != std::string_view::npos) {
      to->push_back(kTo[i]);
      return;
    }
    if (c != 'u') fail("an unknown escape stands");
    uint32_t code = hex4();
    if (code >= 0xd800 && code < 0xdc00) {
      if (!take('\\') || !take('u')) fail("half of a surrogate pair stands");
      const uint32_t low = hex4();
      if (low < 0xdc00 || low > 0xdfff) fail("half of a surrogate pair stands");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
      fail("half of a surrogate pair stands");
    }
    const auto put = [to](uint32_t byte) { to->push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | code >> 6), put(0x80 | (code & 63));
    } else if (code < 0x10000) {
      put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
    } else {
      put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 63));
      put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
    }
  }

  std::string string() {
    std::string made;
    ++at_;
    for (;;) {
      if (at_ >= text_.size()) fail("a string is not closed");
      const char c = text_[at_];
      ++at_;
      if (c == '"') return made;
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character stands in a string");
      if (c == '\\') {
        escape(&made);
      } else {
        made.push_back(c);
      }
    }
  }

  void digits() {
    if (peek() < '0' || peek() > '9') fail("a value is missing or a number is incomplete");
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  void number(Json* made) {
    const size_t from = at_;
    take('-');
    if (!take('0')) digits();
    bool whole = true;
    if (take('.')) {
      whole = false;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      whole = false;
      ++at_;
      if (!take('+')) take('-');
      digits();
    }
    const char *begin = text_.data() + from, *end = text_.data() + at_;
    if (whole) {
      if (std::from_chars(begin, end, made->integer).ec != std::errc())
        fail("an integer is too large");
      made->kind = Json::Kind::integer;
      made->number = static_cast<double>(made->integer);
      return;
    }
    made->kind = Json::Kind::number;
    if (std::from_chars(begin, end, made->number).ec == std::errc::result_out_of_range) {
      // Too large, or too small: the digits of the exponent say which.
      const bool negative = *begin == '-';
      const std::string_view written(begin, static_cast<size_t>(end - begin));
      const size_t e = written.find_first_of("eE");
      const bool tiny = e != std::string_view::npos && written[e + 1] == '-';
      made->number = tiny ? 0.0 : std::numeric_limits<double>::infinity();
      if (negative) made->number = -made->number;
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

const Json* Json::find(std::string_view name) const {
  for (const auto& [key, item] : fields) {
    if (key == name) return &item;
  }
  return nullptr;
}

Json read_json(std::string_view text) { return Reader(text).read(); }

}  // namespace nodebits::plan
