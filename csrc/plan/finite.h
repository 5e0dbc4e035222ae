// Refuses NaN and infinity, with their number and the first of them.
#pragma once

#include <cstdint>

#include "plan/program.h"

namespace nodebits::plan {

bool all_finite(const float* x, int64_t count, int threads);

// Throws PlanError, "NonFiniteError", unless all values are finite.
void check_finite(const Value& x, const char* what, int threads);

}  // namespace nodebits::plan
