// The records of run/records.h, which come from Python as the tuple of their fields.
#pragma once

#include <tuple>

#include "bindings/arrays.h"
#include "run/arguments.h"

namespace nodebits {

using EdgesIn = EdgesOf<In>;
using SourceIn = SourceOf<In>;
using JoinedIn = JoinedOf<In>;
using MixedIn = MixedOf<In>;
using WeightIn = WeightOf<In>;
using EpilogueIn = EpilogueOf<In>;
using ProductIn = ProductOf<In>;
using OwnIn = OwnOf<In>;
using OutputIn = OutputOf<In>;
using SinkIn = SinkOf<In>;
using RoundsIn = RoundsOf<In>;
using StepsIn = StepsRecord;

template <class T>
concept Record = requires { typename T::Fields; };

}  // namespace nodebits

namespace nanobind::detail {

template <nodebits::Record T>
struct type_caster<T> {
  using Caster = make_caster<typename T::Fields>;
  NB_TYPE_CASTER(T, Caster::Name)

  bool from_python(handle source, uint8_t flags, cleanup_list* cleanup) noexcept {
    Caster fields;
    if (!fields.from_python(source, flags, cleanup)) return false;
    value = std::make_from_tuple<T>(fields.operator typename T::Fields());
    return true;
  }
};

}  // namespace nanobind::detail
