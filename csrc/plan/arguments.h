// Arguments of steps as they stand in a plan.
#pragma once

#include <string>
#include <vector>

#include "plan/json.h"
#include "plan/program.h"

namespace nodebits::plan {

struct Arg {
  enum class Kind { none, boolean, integer, number, value, size, text, list };

  Kind kind = Kind::none;
  bool boolean = false;
  double number = 0.0;  // of an integer too
  Int integer;          // a constant (value -1), a size, or the value named
  std::string text;
  std::vector<Arg> items;
};

// Throws PlanError, "FileFormatError"; `where` names the step.
Arg read_argument(const Json& json, const std::string& where);

}  // namespace nodebits::plan
