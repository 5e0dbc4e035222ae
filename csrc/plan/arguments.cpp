// Strings of arguments: "v5", "d5.0", "n5+1", "=text".
#include "plan/arguments.h"

#include <charconv>

namespace nodebits::plan {
namespace {

// Reads a decimal number from the front of `text`; false where there is none.
template <class T>
bool take_number(std::string_view* text, T* number) {
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *number);
  if (error != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

bool take_char(std::string_view* text, char c) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

// "+3" or "-3" at the end; nothing is 0.
bool take_plus(std::string_view* text, int64_t* plus) {
  *plus = 0;
  if (text->empty()) return true;
  if (text->front() == '+') {
    text->remove_prefix(1);
    if (text->empty() || text->front() == '-') return false;
  }
  return take_number(text, plus) && text->empty();
}

bool read_reference(std::string_view text, Arg* made) {
  Int& i = made->integer;
  if (take_char(&text, 'v')) {
    made->kind = Arg::Kind::value;
    return take_number(&text, &i.value) && i.value >= 0 && text.empty();
  }
  made->kind = Arg::Kind::size;
  if (take_char(&text, 'd')) {
    return take_number(&text, &i.value) && i.value >= 0 && take_char(&text, '.') &&
           take_number(&text, &i.axis) && i.axis >= 0 && i.axis < kMostDims &&
           take_plus(&text, &i.plus);
  }
  i.axis = -1;
  return take_char(&text, 'n') && take_number(&text, &i.value) && i.value >= 0 &&
         take_plus(&text, &i.plus);
}

}  // namespace

Arg read_argument(const Json& json, const std::string& where) {
  Arg made;
  switch (json.kind) {
    case Json::Kind::null:
      break;
    case Json::Kind::boolean:
      made.kind = Arg::Kind::boolean;
      made.boolean = json.boolean;
      break;
    case Json::Kind::integer:
      made.kind = Arg::Kind::integer;
      made.integer.plus = json.integer;
      made.number = json.number;
      break;
    case Json::Kind::number:
      made.kind = Arg::Kind::number;
      made.number = json.number;
      break;
    case Json::Kind::list:
      made.kind = Arg::Kind::list;
      for (const Json& item : json.items) made.items.push_back(read_argument(item, where));
      break;
    case Json::Kind::text:
      if (!json.text.empty() && json.text[0] == '=') {
        made.kind = Arg::Kind::text;
        made.text = json.text.substr(1);
        break;
      }
      if (read_reference(json.text, &made)) break;
      throw PlanError("FileFormatError", where + " has the argument \"" + json.text +
                                             "\": expected v5, d5.0, n5+1 or =text");
    case Json::Kind::object:
      throw PlanError("FileFormatError", where + " has an object as an argument");
  }
  return made;
}

const Arg& Reader::next() {
  static const Arg none;
  return at_ < args_->size() ? (*args_)[at_++] : none;
}

void Reader::fail(const std::string& what) const {
  throw PlanError("FileFormatError", "step " + std::to_string(number_) + " (" + op_ +
                                         ") of the plan, argument " + std::to_string(at_) + ": " +
                                         what);
}

void Reader::end() const {
  if (at_ < args_->size())
    throw PlanError("FileFormatError", "step " + std::to_string(number_) + " (" + op_ +
                                           ") of the plan has " + std::to_string(args_->size()) +
                                           " arguments, " + std::to_string(at_) + " are known");
  if (out_ < outs_->size())
    throw PlanError("FileFormatError", "step " + std::to_string(number_) + " (" + op_ +
                                           ") of the plan has " + std::to_string(outs_->size()) +
                                           " results, it makes " + std::to_string(out_));
}

In Reader::named(const Arg& a) {
  if (a.kind != Arg::Kind::value) fail("expected a value");
  named_.push_back(a.integer.value);
  return {a.integer.value};
}

Int Reader::integer_of(const Arg& a) {
  if (a.kind == Arg::Kind::size) {
    named_.push_back(a.integer.value);
    sizes_.push_back(a.integer);
  } else if (a.kind != Arg::Kind::integer) {
    fail("expected an integer");
  }
  return a.integer;
}

In Reader::value() { return named(next()); }

In Reader::optional() {
  const Arg& a = next();
  return a.kind == Arg::Kind::none ? In{} : named(a);
}

bool Reader::flag() {
  const Arg& a = next();
  if (a.kind != Arg::Kind::boolean) fail("expected true or false");
  return a.boolean;
}

int Reader::whole() {
  const Arg& a = next();
  if (a.kind != Arg::Kind::integer || a.integer.plus < INT32_MIN || a.integer.plus > INT32_MAX)
    fail("expected a constant integer");
  return static_cast<int>(a.integer.plus);
}

int64_t Reader::long_whole() {
  const Arg& a = next();
  if (a.kind != Arg::Kind::integer) fail("expected a constant integer");
  return a.integer.plus;
}

int Reader::bits() {
  const int b = whole();
  if (b < 1 || b > 8) fail("bits must be 1 to 8, got " + std::to_string(b));
  return b;
}

Int Reader::integer() { return integer_of(next()); }

Int Reader::integer_or(int64_t otherwise) {
  const Arg& a = next();
  return a.kind == Arg::Kind::none ? Int{otherwise, -1, 0} : integer_of(a);
}

Number Reader::number() {
  const Arg& a = next();
  if (a.kind == Arg::Kind::number || a.kind == Arg::Kind::integer) return {a.number, {}};
  if (a.kind != Arg::Kind::size) fail("expected a number");
  return {0.0, integer_of(a)};
}

std::string Reader::text() {
  const Arg& a = next();
  if (a.kind != Arg::Kind::text) fail("expected a text");
  return a.text;
}

bool Reader::at_number() const {
  if (at_ >= args_->size()) return false;
  const Arg::Kind kind = (*args_)[at_].kind;
  return kind == Arg::Kind::number || kind == Arg::Kind::integer || kind == Arg::Kind::size;
}

bool Reader::at_end() const { return at_ == args_->size(); }

bool Reader::at_null() const {
  return at_ >= args_->size() || (*args_)[at_].kind == Arg::Kind::none;
}

bool Reader::at_list() const {
  return at_ < args_->size() && (*args_)[at_].kind == Arg::Kind::list;
}

template <class F>
void Reader::each(const F& f) {
  const Arg& a = next();
  if (a.kind != Arg::Kind::list) fail("expected a list");
  for (const Arg& item : a.items) f(item);
}

std::vector<In> Reader::values() {
  std::vector<In> made;
  each([&](const Arg& a) { made.push_back(named(a)); });
  return made;
}

std::vector<In> Reader::optionals() {
  std::vector<In> made;
  each([&](const Arg& a) { made.push_back(a.kind == Arg::Kind::none ? In{} : named(a)); });
  return made;
}

std::vector<int64_t> Reader::wholes() {
  std::vector<int64_t> made;
  each([&](const Arg& a) {
    if (a.kind != Arg::Kind::integer) fail("expected constant integers");
    made.push_back(a.integer.plus);
  });
  return made;
}

std::vector<Int> Reader::integers() {
  std::vector<Int> made;
  each([&](const Arg& a) { made.push_back(integer_of(a)); });
  return made;
}

std::vector<double> Reader::numbers() {
  std::vector<double> made;
  each([&](const Arg& a) {
    if (a.kind != Arg::Kind::number && a.kind != Arg::Kind::integer) fail("expected numbers");
    made.push_back(a.number);
  });
  return made;
}

std::vector<Term> Reader::terms() {
  std::vector<Term> made;
  each([&](const Arg& a) {
    if (a.kind == Arg::Kind::text)
      made.push_back({a.text, {}});
    else if (a.kind == Arg::Kind::number || a.kind == Arg::Kind::integer)
      made.push_back({"", {a.number, {}}});
    else
      made.push_back({"", {0.0, integer_of(a)}});
  });
  return made;
}

std::vector<bool> Reader::flags() {
  std::vector<bool> made;
  each([&](const Arg& a) {
    if (a.kind != Arg::Kind::boolean) fail("expected true or false");
    made.push_back(a.boolean);
  });
  return made;
}

int Reader::out() {
  if (out_ >= outs_->size()) {
    throw PlanError("FileFormatError", "step " + std::to_string(number_) + " (" + op_ +
                                           ") of the plan has " + std::to_string(outs_->size()) +
                                           " results, it makes more");
  }
  return (*outs_)[out_++];
}

void Reader::alias(int out, In of) {
  program.root[static_cast<size_t>(out)] = program.root[static_cast<size_t>(of.value)];
}

const Value* Reader::constant(In in) const {
  return in && program.constant[static_cast<size_t>(in.value)]
             ? &program.values[static_cast<size_t>(in.value)]
             : nullptr;
}

}  // namespace nodebits::plan
