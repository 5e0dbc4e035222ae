// Float rows that several steps pack are read once.
#pragma once

#include "plan/program.h"

namespace nodebits::plan {

// The first step that packs some rows also packs them for later ones that need no more than is
// there by then, and looks on the way whether all values are finite where a step before it would.
void join_packing(const Program& p);

}  // namespace nodebits::plan
