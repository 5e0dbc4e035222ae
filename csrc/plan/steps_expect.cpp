// What follows from sizes: numbers, and comparisons; where one has another outcome than it was
// expected to, the forward goes another way.
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "plan/program.h"

namespace nodebits::plan {
namespace {

// As Python counts: sizes and what follows from them are far below 2^53.
using Function = double (*)(double, double);
struct Named {
  const char* name;
  Function function;
};
constexpr std::array<Named, 12> kFunctions{{
    {"add", [](double a, double b) { return a + b; }},
    {"sub", [](double a, double b) { return a - b; }},
    {"mul", [](double a, double b) { return a * b; }},
    {"div", [](double a, double b) { return a / b; }},
    {"floordiv", [](double a, double b) { return std::floor(a / b); }},
    {"mod", [](double a, double b) { return a - b * std::floor(a / b); }},
    {"lt", [](double a, double b) { return a < b ? 1.0 : 0.0; }},
    {"le", [](double a, double b) { return a <= b ? 1.0 : 0.0; }},
    {"gt", [](double a, double b) { return a > b ? 1.0 : 0.0; }},
    {"ge", [](double a, double b) { return a >= b ? 1.0 : 0.0; }},
    {"eq", [](double a, double b) { return a == b ? 1.0 : 0.0; }},
    {"ne", [](double a, double b) { return a != b ? 1.0 : 0.0; }},
}};
constexpr size_t kMostOperands = 64;

struct Part {
  Function function = nullptr;  // null: the number
  bool divides = false;         // by zero: an error of the forward, which the model has words for
  Number number;
};

[[noreturn]] void refuse() {
  throw PlanError("Refused", "the model's forward goes another way for data of these sizes");
}

// Numbers and operators on those before them, which leave one number.
std::vector<Part> read_parts(Reader& r) {
  std::vector<Part> parts;
  size_t depth = 0;
  for (const Term& term : r.terms()) {
    Part part;
    part.number = term.number;
    if (!term.op.empty()) {
      for (const Named& one : kFunctions)
        if (term.op == one.name) part.function = one.function;
      part.divides = term.op == "div" || term.op == "floordiv" || term.op == "mod";
      if (part.function == nullptr) r.fail("there is no operator \"" + term.op + "\"");
      if (depth < 2) r.fail("an operator stands before its operands");
      --depth;
    } else if (++depth > kMostOperands) {
      r.fail("too many operands");
    }
    parts.push_back(part);
  }
  if (depth != 1) r.fail("expected what leaves one number");
  return parts;
}

double value_of(const std::vector<Part>& parts, Frame& f) {
  std::array<double, kMostOperands> stack{};
  size_t depth = 0;
  for (const Part& part : parts) {
    if (part.function == nullptr) {
      stack[depth++] = f.at(part.number);
    } else {
      --depth;
      if (part.divides && stack[depth] == 0.0) refuse();
      stack[depth - 1] = part.function(stack[depth - 1], stack[depth]);
    }
  }
  return stack[0];
}

StepPtr expect(Reader& r) {
  const std::vector<Part> parts = read_parts(r);
  const std::string outcome = r.text();
  if (outcome != "true" && outcome != "false") r.fail("expected true or false as a text");
  return step([parts, expected = outcome == "true"](Frame& f) {
    if ((value_of(parts, f) != 0.0) != expected) refuse();
  });
}

StepPtr number(Reader& r) {
  const std::vector<Part> parts = read_parts(r);
  const int out = r.out();
  return step([parts, out](Frame& f) {
    const double value = value_of(parts, f);
    if (value != std::floor(value) || std::abs(value) > 9007199254740992.0) refuse();
    *f.make(out, DType::i64, {1}).as<int64_t>() = static_cast<int64_t>(value);
  });
}

}  // namespace

Operations expect_operations() { return {{"expect", expect}, {"number", number}}; }

}  // namespace nodebits::plan
