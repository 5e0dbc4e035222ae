// Reads JSON of unknown origin from front to back and keeps nothing of it: what a file's header
// costs is its text, whatever stands there.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace nodebits {

struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}

  // Calls on_key(key) for every entry; it must read the value.
  template <class F>
  void object(const F& on_key) {
    items('{', '}', [&] {
      const std::string key = string();
      expect(':');
      on_key(key);
    });
  }

  // Calls on_item() for every item; it must read it.
  template <class F>
  void array(const F& on_item) {
    items('[', ']', on_item);
  }

  // A string as UTF-8. Half a surrogate pair is refused, as is a raw control character.
  std::string string();
  // A whole number of at most 18 digits, without sign, point and exponent.
  int64_t integer();
  // Reads one value of any kind, checks its syntax and gives its text.
  std::string_view skip();
  // What the next value begins with; 0 at the end.
  char peek();
  // Throws unless nothing is left.
  void end();

 private:
  template <class F>
  void items(char open, char close, const F& on_item) {
    expect(open);
    if (++depth_ > kDeepest) fail("nested too deep");
    if (peek() != close) {
      for (;;) {
        on_item();
        if (peek() != ',') break;
        ++at_;
      }
    }
    expect(close);
    --depth_;
  }

  static constexpr int kDeepest = 200;

  [[noreturn]] void fail(const char* what) const;
  void expect(char c);
  void number();
  void word(std::string_view expected);
  uint32_t four_digits();
  void escape(std::string& out);

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
};

// The name in quotes, cut, and without what a terminal would act on.
std::string quoted(std::string_view name);

}  // namespace nodebits
