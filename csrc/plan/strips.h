// Steps that work row by row, one after another on a few rows at a time.
//
// What such a step makes of all rows has left the cache when the next one reads it. Steps of a
// strip run on as many rows as stay there, in a workspace of their own, and only what others read
// is written in full. A row has the same bits whatever rows are made with it.
#pragma once

#include <vector>

#include "plan/program.h"

namespace nodebits::plan {

// By step that begins a strip, the step after its last one; 0 for others.
std::vector<int> find_strips(const Program& p);

}  // namespace nodebits::plan
