// Functions of the module.
#pragma once

#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "run/pool.h"

namespace nodebits {

// Defines f as `name`.
template <class R, class... A>
void define(nb::module_& m, const std::string& name, R (*f)(A...)) {
  const auto argument = []<class T>() {
    if constexpr (std::is_same_v<std::decay_t<T>, OptionalIn>)
      return nb::arg().none();
    else
      return nb::arg();
  };
  m.def(name.c_str(), f, argument.template operator()<A>()...);
}

// One per file.
void define_rows(nb::module_& m);
void define_attention(nb::module_& m);
void define_products(nb::module_& m);
void define_reductions(nb::module_& m);
void define_pairs(nb::module_& m);
void define_gates(nb::module_& m);
void define_outer(nb::module_& m);
void define_graphs(nb::module_& m);
void define_fused(nb::module_& m);
void define_sampling(nb::module_& m);
void define_plans(nb::module_& m);
void define_guard(nb::module_& m);
void define_changing(nb::module_& m);

}  // namespace nodebits
