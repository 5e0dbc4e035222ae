// The header of an instruction set, isa/NAME.h, gives `Isa`, a type of its own with
//   kMissing         what a processor lacks on which supported() is false
//   supported()      whether the processor that runs has it; must run on any
//   ByteVectors      types with the members of Vec16, each half as wide as the one before it
//   kSharedRegister  whether the first of them holds blocks of several rows (see Vec64)
// and overloads of those functions of families/ that it does better: the families pass the type as
// the first argument, a function that takes exactly this type is preferred to the template. An
// overload gives the bits of what it replaces.
#pragma once

namespace nodebits {
namespace {

// Types of byte vectors, the widest first.
template <class... V>
struct Vectors {};

}  // namespace
}  // namespace nodebits
