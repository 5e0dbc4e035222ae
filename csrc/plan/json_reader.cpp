#include "plan/json_reader.h"

namespace nodebits {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, uint32_t code) {
  const auto add = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | code >> 6);
    add(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  } else {
    add(0xF0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3F));
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  }
}

}  // namespace

void JsonReader::fail(const char* what) const {
  throw JsonError(std::string(what) + " at byte " + std::to_string(at_) + " of the JSON");
}

char JsonReader::peek() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
    ++at_;
  }
  return 0;
}

void JsonReader::expect(char c) {
  if (peek() != c || at_ >= text_.size()) {
    const char what[] = {'n', 'o', ' ', '\'', c, '\'', 0};
    fail(what);
  }
  ++at_;
}

void JsonReader::end() {
  peek();
  if (at_ != text_.size()) fail("more text");
}

uint32_t JsonReader::four_digits() {
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const char lower = static_cast<char>(c | 0x20);
    if (is_digit(c)) {
      code = code * 16 + static_cast<uint32_t>(c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      code = code * 16 + static_cast<uint32_t>(lower - 'a' + 10);
    } else {
      fail("a broken \\u");
    }
  }
  return code;
}

void JsonReader::escape(std::string& out) {
  const char c = at_ < text_.size() ? text_[at_++] : '\0';
  switch (c) {
    case '"':
    case '\\':
    case '/':
      out += c;
      return;
    case 'b':
      out += '\b';
      return;
    case 'f':
      out += '\f';
      return;
    case 'n':
      out += '\n';
      return;
    case 'r':
      out += '\r';
      return;
    case 't':
      out += '\t';
      return;
    case 'u': {
      uint32_t code = four_digits();
      if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
        at_ += 2;
        const uint32_t low = four_digits();
        if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      } else if (code >= 0xD800 && code <= 0xDFFF) {
        fail("half a surrogate pair");
      }
      append_utf8(out, code);
      return;
    }
    default:
      fail("an unknown escape");
  }
}

std::string JsonReader::string() {
  expect('"');
  std::string out;
  for (;;) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\') {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("a control character in a string");
      ++at_;
    }
    if (at_ >= text_.size()) fail("a string without an end");
    out.append(text_, begin, at_ - begin);
    if (text_[at_++] == '"') return out;
    escape(out);
  }
}

int64_t JsonReader::integer() {
  const char first = peek();
  const size_t begin = at_;
  int64_t value = 0;
  while (at_ < text_.size() && is_digit(text_[at_])) {
    if (at_ - begin >= 18) fail("a number beyond all sizes");
    value = value * 10 + (text_[at_++] - '0');
  }
  const char after = at_ < text_.size() ? text_[at_] : '\0';
  if (at_ == begin || (first == '0' && at_ - begin > 1) || after == '.' || after == 'e' ||
      after == 'E') {
    fail("no whole number");
  }
  return value;
}

void JsonReader::number() {
  const auto digits = [&] {
    const size_t begin = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    if (at_ == begin) fail("a broken number");
  };
  const auto next_is = [&](char c) { return at_ < text_.size() && text_[at_] == c; };
  if (next_is('-')) ++at_;
  if (next_is('0')) {
    ++at_;
  } else {
    digits();
  }
  if (next_is('.')) {
    ++at_;
    digits();
  }
  if (next_is('e') || next_is('E')) {
    ++at_;
    if (next_is('+') || next_is('-')) ++at_;
    digits();
  }
}

void JsonReader::word(std::string_view expected) {
  if (text_.substr(at_, expected.size()) != expected) fail("an unknown word");
  at_ += expected.size();
}

std::string_view JsonReader::skip() {
  const char first = peek();
  const size_t begin = at_;
  switch (first) {
    case '{':
      object([&](const std::string&) { skip(); });
      break;
    case '[':
      array([&] { skip(); });
      break;
    case '"':
      string();
      break;
    case 't':
      word("true");
      break;
    case 'f':
      word("false");
      break;
    case 'n':
      word("null");
      break;
    default:
      number();
  }
  return text_.substr(begin, at_ - begin);
}

std::string quoted(std::string_view name) {
  std::string out = "'";
  for (const char c : name.substr(0, 60)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7F ? '?' : c;
  }
  if (name.size() > 60) out += "...";
  return out + "'";
}

}  // namespace nodebits
