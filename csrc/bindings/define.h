// Functions of the module, and steps: calls bound to their arguments.
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

// A call with its arguments, which it keeps alive. Its checks are made anew whenever it runs.
using Step = std::function<void()>;

// f, but what it would do becomes a step.
template <class... A>
auto bound(void (*f)(A...)) {
  return [f](std::decay_t<A>... arguments) -> Step {
    return [f, ... kept = std::move(arguments)] { f(kept...); };
  };
}

// Steps one after the other, without Python between them.
struct Program {
  std::vector<Step> steps;

  void run() const {
    const KeepAwake awake;
    for (const Step& step : steps) step();
  }
};

// Defines f as `name`, and, where it returns nothing, as `bind_name` what makes a step of it.
template <class R, class... A>
void define(nb::module_& m, const std::string& name, R (*f)(A...)) {
  const auto argument = []<class T>() {
    if constexpr (std::is_same_v<std::decay_t<T>, OptionalIn>)
      return nb::arg().none();
    else
      return nb::arg();
  };
  m.def(name.c_str(), f, argument.template operator()<A>()...);
  if constexpr (std::is_void_v<R>)
    m.def(("bind_" + name).c_str(), bound(f), argument.template operator()<A>()...);
}

// One per file.
void define_rows(nb::module_& m);
void define_products(nb::module_& m);
void define_graphs(nb::module_& m);
void define_fused(nb::module_& m);
void define_plans(nb::module_& m);

}  // namespace nodebits
