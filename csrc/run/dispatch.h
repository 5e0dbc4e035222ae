// Which instruction-set levels were compiled, which this processor runs, and which one is in use.
#pragma once

#include <string>
#include <vector>

#include "contract/kernels.h"

namespace nodebits {

struct IsaLevel {
  const char* name;
  bool available;
  std::string reason;  // why it is not available; empty otherwise
};

// All levels that exist, slowest first.
std::vector<IsaLevel> isa_levels();

// Switches the whole process. Returns false, changing nothing, when the level is unknown or not
// available.
bool set_isa(const std::string& name);
const char* current_isa();
const Kernels& kernels();

}  // namespace nodebits
