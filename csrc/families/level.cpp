// One level. CMakeLists.txt compiles this file once for every instruction set, with its flags:
// HEADER gives the type `Isa`, for which the kernels are made, LEVEL is what dispatch.cpp calls the
// result.
#include NODEBITS_HEADER

#include "families/table.h"

namespace nodebits {

extern const Level NODEBITS_LEVEL;

const Level NODEBITS_LEVEL = {Isa::kMissing, [] { return Isa::supported(); },
                              [] { return kernels_of(Isa{}); }};

}  // namespace nodebits
